"""Parameters and FLOPs, counted per module. 6·N·D is wrong by a third for small models, so it is never used instead."""

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D


def count_parameters(model: PreTrainedModel) -> dict[str, int]:
    """Return trainable parameters by group; the groups add up to `total`, which is asserted.

    `tables` are what looks a token or a position up and what turns the last state into a token (an untied head too):
    with them left out, a tied GPT and an untied LSTM are counted alike. `total - tables` is `n_params_non_embedding`
    (Kaplan et al. 2020, section 2.1).
    """
    head = model.get_output_embeddings()
    tables = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) or m is head for p in m.parameters()}
    groups = {"tables": 0, "matrices": 0, "vectors": 0}
    for parameter in model.parameters():
        name = "tables" if id(parameter) in tables else "matrices" if parameter.ndim > 1 else "vectors"
        groups[name] += parameter.numel()
    total = model.num_parameters(only_trainable=True)
    assert sum(groups.values()) == total, "a parameter is counted twice or not at all"
    return {**groups, "total": total}


def flops_per_token(model: PreTrainedModel, context: int) -> int:
    """Return training FLOPs per token, forward and backward, at a context of `context` tokens.

    GPT: 6·(weights of every matrix product, the output head included) + 6·layers·context·width for causal attention
    (Hoffmann et al. 2022, appendix F, halved for causality). LSTM: 6·(gate weights + head). Look-ups cost nothing.
    """
    products = 0
    attention = 0
    for module in model.modules():
        if isinstance(module, (nn.Linear, Conv1D)):  # a tied head is a Linear too: its product is paid
            products += module.weight.numel()
        elif isinstance(module, nn.LSTM):
            products += sum(p.numel() for name, p in module.named_parameters() if name.startswith("weight"))
    if model.config.model_type == "gpt2":
        attention = model.config.n_layer * context * model.config.n_embd
    return 6 * (products + attention)
