"""Fast decoding: model.generate(**inputs, custom_generate=Decoder(tokenizer)); this file is packed with a model.

At batch 1 most of the time of generate is overhead. Here a step is a few operations on preallocated tensors: a GPT's
keys and values are written in place, an LSTM's input products are a table over the vocabulary, and processors and
stopping criteria are inspected once a call.

Axes: batch (rows of ids), slots (rows that have not ended), time, heads, width (of a head), vocab.
"""

from collections.abc import Callable, Sequence
from math import inf
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    EosTokenCriteria,
    GenerationConfig,
    LogitsProcessorList,
    MaxLengthCriteria,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
)
from transformers.generation.configuration_utils import GenerationMode

BAR_LINES = ("|", "\n")
# The share of a GPT's context that is kept when it is full. On the 8,181 characters of 61 validation tunes beyond their
# first 256, GPTs of 500k (two seeds) have 1.559 and 1.563 nats with one half kept. A quarter costs 0.010 and 0.007
# (± 0.004), the header kept in front 0.005 and 0.004 (± 0.003); three quarters save 0.003 and 0.002 (± 0.003) for 57 %
# more windows; the boundary token in front changes nothing (0.000 ± 0.002).
KEPT = 1 / 2

# What generate passes to any model.
STANDARD_ARGUMENTS = {"attention_mask", "position_ids", "past_key_values", "use_cache", "logits_to_keep"}


class Decoder:
    """A `custom_generate` for a GPT-2 or an AbcLstmForCausalLM: the tokens of plain generate, faster.

    It draws the random numbers of plain generate, so the same seed gives the same tokens up to rounding: in float32 all
    but ties, in bfloat16 an LSTM soon diverges. Processors and stopping criteria see all rows with all their ids, in
    inference mode. Rows that have ended are not computed. Batches are padded on the left.

    Where plain generate fails at the end of a GPT's context, this continues from a window that begins after a bar line
    or a newline (see KEPT). An LSTM has no context length.

    Dropout in training mode (generate does not switch it off), a dictionary as result, a filled cache and embeddings as
    input are left to plain generate. Weights are read once a call, so adapters have to be merged before. generate does
    not pass a streamer to a custom_generate, nor a tokenizer for `stop_strings`.

    Raises ValueError for another architecture, and for beams or another way to decode.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.bar_lines = {tokenizer.convert_tokens_to_ids(token) for token in BAR_LINES}

    def __call__(
        self,
        model: PreTrainedModel,
        input_ids: Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        **model_kwargs: Any,
    ) -> Any:
        """Continue input_ids [batch, time]; called by generate, and returns what its `_sample` would."""
        architecture, mode = model.config.model_type, generation_config.get_generation_mode()
        if architecture not in STATES:
            raise ValueError(f"Decoder knows {' and '.join(STATES)}, not {architecture}: leave custom_generate out")
        if mode not in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE):
            raise ValueError(f"Decoder decodes greedily or by sampling, not by {mode.value}: leave custom_generate out")
        cache = model_kwargs.get("past_key_values")
        if (
            generation_config.return_dict_in_generate
            or model_kwargs.keys() - STANDARD_ARGUMENTS
            or (cache is not None and cache.get_seq_length())
            or any(isinstance(module, nn.Dropout) and module.training and module.p for module in model.modules())
        ):
            plain: Any = model
            return plain._sample(
                input_ids,
                logits_processor=logits_processor,
                stopping_criteria=stopping_criteria,
                generation_config=generation_config,
                **model_kwargs,
            )
        with torch.inference_mode():
            ids = self._decode(model, input_ids, logits_processor, stopping_criteria, generation_config, model_kwargs)
        return ids.clone()  # an ordinary tensor

    def _decode(
        self,
        model: PreTrainedModel,
        ids: Tensor,
        processors: LogitsProcessorList,
        criteria: StoppingCriteriaList,
        config: Any,
        model_kwargs: dict[str, Any],
    ) -> Tensor:
        batch, device, mask = len(ids), model.device, model_kwargs.get("attention_mask")
        padding = [0] * batch if mask is None else (mask == 0).sum(1).tolist()
        # The two usual criteria are applied on the host, which has the new tokens anyway.
        longest = min((each.max_length for each in criteria if type(each) is MaxLengthCriteria), default=inf)
        ends = {end for each in criteria if type(each) is EosTokenCriteria for end in each.eos_token_id.tolist()}
        others = StoppingCriteriaList(
            each for each in criteria if type(each) not in (MaxLengthCriteria, EosTokenCriteria)
        )
        pads = any(hasattr(each, "eos_token_id") for each in criteria)  # otherwise a row that has ended continues

        rows, index = list(range(batch)), torch.arange(batch, device=ids.device)  # of each slot
        finished = [False] * batch

        def history(slot: int) -> list[int]:
            return ids[rows[slot], padding[rows[slot]] :].tolist()

        state = STATES[model.config.model_type](model, [history(slot) for slot in rows], longest, self.bar_lines)
        tokens = ids[:, -1]
        while True:
            tokens = tokens if len(rows) == batch else tokens[index]
            scores = state.step(tokens.to(device), history).to(ids.device, torch.float32)
            if len(rows) < batch:
                scores = scores.new_zeros(batch, scores.shape[1]).index_copy_(0, index, scores)
            for process in processors:
                scores = process(ids, scores)
            tokens = torch.multinomial(torch.softmax(scores, -1), 1)[:, 0] if config.do_sample else scores.argmax(-1)
            if len(rows) < batch:
                tokens.masked_fill_(ids.new_tensor(finished, dtype=torch.bool), config._pad_token_tensor)
            ids = torch.cat([ids, tokens[:, None]], 1)
            stopped = others(ids, None).tolist() if others else [False] * batch
            for row, token in enumerate(tokens.tolist()):
                finished[row] |= token in ends or stopped[row]
            if ids.shape[1] >= longest or all(finished):
                return ids
            left = [slot for slot, row in enumerate(rows) if not finished[row]]
            if pads and len(left) < len(rows):
                spare = [slot for slot in left if slot >= len(left)]
                order = [spare.pop() if finished[rows[slot]] else slot for slot in range(len(left))]
                state.select(order)
                rows = [rows[slot] for slot in order]
                index = ids.new_tensor(rows)


def window(history: Sequence[int], size: int, bar_lines: set[int]) -> Sequence[int]:
    """Return the longest end of at most `size` ids that begins after a bar line; without one, the last `size`."""
    first = len(history) - size
    return history[next((i for i in range(first, len(history)) if history[i - 1] in bar_lines), first) :]


def _padded(sequences: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Return ids [rows, time], padded on the right with the last of each."""
    longest = max(map(len, sequences))
    return torch.tensor([[*ids, *[ids[-1]] * (longest - len(ids))] for ids in sequences], device=device)


class _GptState:
    """Keys and values of every slot: [layers, 2, slots, heads, time, width]; time starts at its window."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], longest: float, bar_lines: set[int]) -> None:
        config, self.transformer, self.head = model.config, model.transformer, model.lm_head.weight
        self.context, self.bar_lines, self.heads = config.n_positions, bar_lines, config.n_head
        self.tokens, self.positions = self.transformer.wte.weight, self.transformer.wpe.weight
        self.layers = []
        for block in self.transformer.h:
            norms = [(norm.normalized_shape, norm.weight, norm.bias, norm.eps) for norm in (block.ln_1, block.ln_2)]
            products = block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj
            weights = [(product.bias, product.weight) for product in products]
            self.layers.append((*norms, *weights, block.mlp.act, block.attn.scaling))
        norm = self.transformer.ln_f
        self.norm = norm.normalized_shape, norm.weight, norm.bias, norm.eps
        columns = int(min(self.context, longest))
        self.memory = self.tokens.new_zeros(
            config.n_layer, 2, len(prompts), self.heads, columns, config.n_embd // self.heads
        )
        self.columns = torch.arange(columns, device=model.device)
        self.lengths = [0] * len(prompts)
        self._fill(list(range(len(prompts))), prompts)

    def _fill(self, slots: list[int], histories: Sequence[Sequence[int]]) -> None:
        """Compute the keys and values of all tokens but the last, or of a window of them if they are too many."""
        windows = [
            history if len(history) <= self.context else window(history, int(KEPT * self.context), self.bar_lines)
            for history in histories
        ]
        ids = _padded(windows, self.tokens.device)
        if ids.shape[1] > 1:
            # No token attends to the padding on its right, so no mask is needed.
            cache = self.transformer(ids[:, :-1], use_cache=True).past_key_values
            for memory, layer in zip(self.memory, cache.layers, strict=True):
                memory[0, slots, :, : ids.shape[1] - 1] = layer.keys
                memory[1, slots, :, : ids.shape[1] - 1] = layer.values
        for slot, each in zip(slots, windows, strict=True):
            self.lengths[slot] = len(each) - 1
        self._update_indices()

    def _update_indices(self) -> None:
        self.slots = self.columns.new_tensor(range(len(self.lengths)))
        self.at = self.columns.new_tensor(self.lengths)

    def select(self, order: list[int]) -> None:
        """Keep the slots `order`; a slot moves only into one that is free."""
        for slot, source in enumerate(order):
            if slot != source:
                self.memory[:, :, slot] = self.memory[:, :, source]
        self.lengths = [self.lengths[slot] for slot in order]
        self._update_indices()

    def step(self, tokens: Tensor, history: Callable[[int], list[int]]) -> Tensor:
        """Return the logits [slots, vocab] after one more token of every slot [slots]."""
        full = [slot for slot, length in enumerate(self.lengths) if length == self.context]
        if full:
            self._fill(full, [history(slot) for slot in full])
        slots, end, mask = len(tokens), max(self.lengths) + 1, None
        if min(self.lengths) + 1 < end:
            hidden = self.columns[:end] > self.at[:, None]
            mask = self.tokens.new_zeros(slots, 1, 1, end).masked_fill_(hidden[:, None, None], -inf)
        x = self.tokens[tokens] + self.positions[self.at]
        for memory, (norm_1, norm_2, to_qkv, outward, widen, narrow, activation, scale) in zip(
            self.memory[:, :, :slots], self.layers, strict=True
        ):
            qkv = torch.addmm(to_qkv[0], torch.layer_norm(x, *norm_1), to_qkv[1]).view(slots, 3, self.heads, -1)
            memory[:, self.slots, :, self.at] = qkv[:, 1:]
            keys, values = memory[:, :, :, :end]
            y = F.scaled_dot_product_attention(qkv[:, 0, :, None], keys, values, mask, scale=scale)
            x = torch.addmm(outward[0], y.reshape(slots, -1), outward[1]).add_(x)
            y = activation(torch.addmm(widen[0], torch.layer_norm(x, *norm_2), widen[1]))
            x = torch.addmm(narrow[0], y, narrow[1]).add_(x)
        self.lengths = [length + 1 for length in self.lengths]
        self.at += 1
        return F.linear(torch.layer_norm(x, *self.norm), self.head)


class _LstmState:
    """h and c [slots, hidden] of every layer, written in place."""

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        longest: float,  # noqa: ARG002 - for a GPT
        bar_lines: set[int],  # noqa: ARG002
    ) -> None:
        lstm, embedding = model.model.lstm, model.model.embed_tokens.weight
        ids = _padded(prompts, embedding.device)
        shape = lstm.num_layers, len(ids), lstm.hidden_size
        h, c = embedding.new_zeros(shape), embedding.new_zeros(shape)
        if ids.shape[1] > 1:
            read = ids.new_tensor([len(prompt) - 1 for prompt in prompts])
            mask = torch.arange(ids.shape[1] - 1, device=ids.device) < read[:, None]
            h, c = model.model(ids[:, :-1], mask, use_cache=True).past_key_values.state
        self.states = list(zip(h, c, strict=True))
        self.layers = []
        for layer in range(lstm.num_layers):
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            inward, recurrent, *biases = (getattr(lstm, f"{name}_l{layer}") for name in names)
            if layer == 0:  # [vocab, 4 · hidden]: the input of the first layer's gates
                self.table = F.linear(embedding, inward, sum(biases))
            self.layers.append((inward.t().contiguous(), recurrent.t().contiguous(), sum(biases)))
        self.head, self.projection = model.lm_head.weight, getattr(model.projection, "weight", None)
        self.select(list(range(len(ids))))

    def select(self, order: list[int]) -> None:
        """Keep the slots `order`."""
        self.states = [(h[order], c[order]) for h, c in self.states]
        self.gates = self.table.new_empty(len(order), self.table.shape[1])
        self.parts = self.gates.chunk(4, 1)

    def step(self, tokens: Tensor, history: Callable[[int], list[int]]) -> Tensor:  # noqa: ARG002 - for a GPT
        """Return the logits [slots, vocab] after one more token of every slot [slots]."""
        i, f, g, o = self.parts  # torch's order: input, forget, cell, output
        x = self.table[tokens]
        for layer, ((h, c), (inward, recurrent, bias)) in enumerate(zip(self.states, self.layers, strict=True)):
            torch.addmm(torch.addmm(bias, x, inward) if layer else x, h, recurrent, out=self.gates)
            c.mul_(f.sigmoid_()).addcmul_(i.sigmoid_(), g.tanh_())
            x = torch.tanh(c, out=h).mul_(o.sigmoid_())
        return F.linear(x if self.projection is None else F.linear(x, self.projection), self.head)


STATES: dict[str, Any] = {"gpt2": _GptState, "abc_lstm": _LstmState}
