"""Configuration of the LSTM language model; this file travels to the Hub beside the model's."""

from transformers import PreTrainedConfig


class AbcLstmConfig(PreTrainedConfig):
    """Shape and initialisation of an :class:`AbcLstmForCausalLM`.

    Fields:
        vocab_size: tokens in the vocabulary.
        embedding_size: width of the token embedding, the input of the first layer.
        hidden_size: width of h and of c in every layer.
        num_hidden_layers: LSTM layers.
        dropout: probability, applied after the embedding, between layers and before the head.
        context_length: tokens in a training window. Informational: an LSTM has no longest input.
        embedding_std: standard deviation of the embedding at initialisation. With ``tie_word_embeddings``
            it is the head's as well, in place of 1/sqrt(hidden_size).
        forget_bias: bias of the forget gates at initialisation, one per unit (Gers et al. 2000;
            Jozefowicz et al. 2015).
        tie_word_embeddings: the head shares the embedding's matrix (Press & Wolf 2017; Inan et al. 2017).
        use_cache: return the state after the last token unless the call says otherwise.

    Raises:
        ValueError: a size below 1 or a dropout outside [0, 1).
    """

    model_type = "abc_lstm"

    vocab_size: int = 128
    embedding_size: int = 128
    hidden_size: int = 128
    num_hidden_layers: int = 1
    dropout: float = 0.0
    context_length: int = 256
    embedding_std: float = 1.0
    forget_bias: float = 1.0
    tie_word_embeddings: bool = False
    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None

    def __post_init__(self, **kwargs: object) -> None:
        super().__post_init__(**kwargs)
        for name in ("vocab_size", "embedding_size", "hidden_size", "num_hidden_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"AbcLstmConfig: {name} is {getattr(self, name)}; give at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"AbcLstmConfig: dropout is {self.dropout}; give a probability in [0, 1)")
