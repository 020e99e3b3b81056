"""An LSTM language model that behaves as any Hugging Face causal model; this file travels to the Hub.

Axes: batch, time (tokens), layers, hidden (units of a layer), vocab.
Sources: LSTM, Hochreiter & Schmidhuber 1997; forget-gate bias, Gers et al. 2000 and Jozefowicz et al. 2015;
tied embedding and head, Press & Wolf 2017 and Inan et al. 2017.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple

from .configuration_abc_lstm import AbcLstmConfig

State = tuple[Tensor, Tensor]


class AbcLstmCache(Cache):
    """The state of an LSTM between two calls, in place of keys and values; its size does not grow with time.

    ``h`` and ``c`` are [layers, batch, hidden], or None before the first token. The model updates the cache given.
    """

    h: Tensor | None = None
    c: Tensor | None = None
    seen_tokens = 0

    def __init__(self) -> None:
        super().__init__(layers=[])  # no list of caches by layer: cuDNN takes one tensor

    @property
    def state(self) -> State | None:
        """(h, c), or None before the first token."""
        return None if self.h is None or self.c is None else (self.h, self.c)

    def store(self, state: State, new_tokens: int) -> None:
        """Replace the state by the one ``new_tokens`` columns (padding counted) further on."""
        self.h, self.c = state
        self.seen_tokens += new_tokens

    def reset(self) -> None:
        self.h = self.c = None
        self.seen_tokens = 0

    def __len__(self) -> int:
        return 0 if self.h is None else self.h.shape[0]

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002 - the base class's signature
        """Columns of input seen so far, padding counted: generate() cuts them off the ids it is given."""
        return self.seen_tokens

    @property
    def batch_size(self) -> int:
        return -1 if self.h is None else self.h.shape[1]

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows ``indices`` [new batch], in that order; a row may be taken more than once."""
        if self.h is not None and self.c is not None:
            indices = indices.to(self.h.device)
            self.h, self.c = self.h.index_select(1, indices), self.c.index_select(1, indices)

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row ``repeats`` times, to continue one prompt in several ways."""
        self.batch_select_indices(torch.arange(max(self.batch_size, 0)).repeat_interleave(repeats))

    @property
    def is_compileable(self) -> bool:
        return False

    @property
    def is_croppable(self) -> bool:
        return False

    def crop(self, tokens_to_remove: int) -> None:
        """Raises NotImplementedError: earlier states are not kept."""
        raise NotImplementedError("an LSTM keeps its last state only and cannot step back")


class AbcLstmPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation.

    Initialisation: embedding (and a tied head) N(0, ``embedding_std``); LSTM matrices uniform on ±1/sqrt(hidden), as
    in torch; LSTM biases 0, but ``forget_bias`` in the forget part of ``bias_ih``, to which torch adds ``bias_hh``; an
    untied head, and the projection before a tied one, N(0, 1/sqrt(hidden)).
    """

    config_class = AbcLstmConfig
    base_model_prefix = "model"
    _is_stateful = True  # generate() then refuses assisted decoding, which needs to step back

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # `init` skips tensors that transformers has loaded. It cannot tell for a slice: the bias is written whole.
        if isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=self.config.embedding_std)
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=module.in_features**-0.5)
        elif isinstance(module, nn.LSTM):
            units = module.hidden_size
            for name, parameter in module.named_parameters():
                if name.startswith("weight"):
                    init.uniform_(parameter, -(units**-0.5), units**-0.5)
                else:
                    bias = torch.zeros_like(parameter)
                    if name.startswith("bias_ih"):
                        # torch's order of gates: input, forget, cell, output
                        bias[units : 2 * units] = self.config.forget_bias
                    init.copy_(parameter, bias)


class AbcLstmModel(AbcLstmPreTrainedModel):
    """Embedding, dropout, LSTM, dropout: [batch, time] token ids to [batch, time, hidden]."""

    def __init__(self, config: AbcLstmConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        self.lstm = nn.LSTM(
            config.embedding_size,
            config.hidden_size,
            config.num_hidden_layers,
            batch_first=True,
            # nn.LSTM drops out between layers only, and warns if there is one layer
            dropout=config.dropout if config.num_hidden_layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: Tensor | None = None,
        past_key_values: AbcLstmCache | None = None,
        use_cache: bool | None = None,
    ) -> BaseModelOutputWithPast:
        """Run the LSTM over ``input_ids`` [batch, time], from the state in ``past_key_values`` if given.

        ``attention_mask`` [batch, time], or [batch, past + time] as generate() passes it, is 1 at tokens and 0 at
        padding, on either side; outputs at padding have no meaning. Without padding leave it None: reading it makes the
        host wait for a GPU. Returns ``last_hidden_state`` [batch, time, hidden] and, if ``use_cache``,
        ``past_key_values``: the given cache, or a new one, with the state after each row's last token.

        Raises ValueError if the mask is shorter than ``input_ids``.
        """
        cache = past_key_values
        if cache is None and (self.config.use_cache if use_cache is None else use_cache):
            cache = AbcLstmCache()
        past = None if cache is None else cache.state
        embedded = self.dropout(self.embed_tokens(input_ids))
        time = input_ids.shape[1]
        if attention_mask is not None and attention_mask.shape[1] < time:
            raise ValueError(f"attention_mask has {attention_mask.shape[1]} columns for {time} tokens")
        if attention_mask is None or (mask := attention_mask[:, -time:].bool()).all():
            hidden, state = self.lstm(embedded, past)
        else:
            hidden, state = self._run_padded(embedded, mask, past)
        if cache is not None:
            cache.store(state, time)
        return BaseModelOutputWithPast(last_hidden_state=self.dropout(hidden), past_key_values=cache)

    def _run_padded(self, embedded: Tensor, mask: Tensor, past: State | None) -> tuple[Tensor, State]:
        """Run the LSTM over the columns where ``mask`` [batch, time] is true, as if there were no others."""
        lengths = mask.sum(1)
        # The sort is stable: real tokens come first, in their order, whichever side the padding is on.
        order = mask.int().argsort(dim=1, descending=True, stable=True).unsqueeze(-1)
        packed = pack_padded_sequence(
            embedded.gather(1, order.expand_as(embedded)),
            lengths.clamp(min=1).cpu(),  # packing refuses empty rows; their state is put back below
            batch_first=True,
            enforce_sorted=False,
        )
        packed, state = self.lstm(packed, past)
        hidden, _ = pad_packed_sequence(packed, batch_first=True, total_length=mask.shape[1])
        hidden = torch.zeros_like(hidden).scatter(1, order.expand_as(hidden), hidden)
        moved = (lengths > 0)[None, :, None]
        before = past if past is not None else (0.0, 0.0)
        return hidden, (torch.where(moved, state[0], before[0]), torch.where(moved, state[1], before[1]))


class AbcLstmForCausalLM(AbcLstmPreTrainedModel, GenerationMixin):
    """The LSTM with a bias-free head: [batch, time] token ids to [batch, time, vocab] logits.

    With ``tie_word_embeddings`` the head's matrix is the embedding's; where ``embedding_size`` and
    ``hidden_size`` differ, a bias-free projection from hidden to embedding precedes it.
    """

    # {the tied: its source}
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012 - transformers' declaration

    def __init__(self, config: AbcLstmConfig) -> None:
        super().__init__(config)
        self.model = AbcLstmModel(config)
        projects = config.tie_word_embeddings and config.embedding_size != config.hidden_size
        width = config.embedding_size if projects else config.hidden_size
        self.projection = nn.Linear(config.hidden_size, width, bias=False) if projects else nn.Identity()
        self.lm_head = nn.Linear(width, config.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # or generate() would make a key-value cache

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: Tensor | None = None,
        past_key_values: AbcLstmCache | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: object,
    ) -> CausalLMOutputWithPast:
        """Predict the next token at every column of ``input_ids`` [batch, time].

        ``attention_mask``, ``past_key_values`` and ``use_cache`` are those of :meth:`AbcLstmModel.forward`. ``labels``
        [batch, time] are the input ids: they are shifted by one inside, and -100 is ignored. ``logits_to_keep`` is the
        number of last columns to keep (0: all), or a tensor of columns. Other keywords (``num_items_in_batch``) go to
        the loss. Returns ``logits`` [batch, kept time, vocab], ``past_key_values``, and with ``labels`` the ``loss`` in
        nats per token: the mean over predicted tokens, or their sum divided by ``num_items_in_batch``.

        Raises ValueError if the mask is shorter than ``input_ids``.
        """
        outputs = self.model(input_ids, attention_mask, past_key_values, use_cache, return_dict=True)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(self.projection(outputs.last_hidden_state[:, kept]))
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=outputs.past_key_values)


__all__ = ["AbcLstmCache", "AbcLstmForCausalLM", "AbcLstmModel", "AbcLstmPreTrainedModel"]
