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


def count_flops(model: PreTrainedModel, context: int) -> dict[str, int]:
    """Return training FLOPs per token, forward and backward, by kind of module, at a context of `context` tokens.

    6 · weights of every matrix product, the output head included; for a GPT also 6 · layers · context · width for
    causal attention (Hoffmann et al. 2022, appendix F, halved for causality). Look-ups cost nothing. Raises ValueError
    for a model of neither architecture.
    """
    flops = {"matrices": 0, "recurrence": 0, "attention": 0, "head": 0}
    head = model.get_output_embeddings()
    for module in model.modules():
        if isinstance(module, (nn.Linear, Conv1D)):  # a tied head is a Linear too: its product is paid
            flops["head" if module is head else "matrices"] += 6 * module.weight.numel()
        elif isinstance(module, nn.LSTM):
            gates = [parameter for name, parameter in module.named_parameters() if name.startswith("weight")]
            flops["recurrence"] += 6 * sum(gate.numel() for gate in gates)
    if model.config.model_type == "gpt2":
        flops["attention"] = 6 * model.config.n_layer * context * model.config.n_embd
    elif model.config.model_type != "abc_lstm":
        raise ValueError(f"the FLOPs of a {model.config.model_type} model are not counted")
    return flops
