"""Logits processors for generate: bars that add up (StrictBars) and header fields with given values (HeaderFields)."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from .bar_automaton import END, Automaton, State
from .notation import FIELD_ORDER

MAX_STATES = 2**15  # kept in memory


class _Node:
    """A state of a processor, the nodes that follow it by token, and a byte for each token: 1 if it may not follow."""

    __slots__ = ("forbidden", "next", "state")

    def __init__(self, state: Any) -> None:
        self.state = state
        self.next: dict[int, _Node] = {}
        self.forbidden = b""


class _StateProcessor(LogitsProcessor):
    """Forbids the tokens that a state does not allow. Rows are boundary tokens and characters, padded on the left.

    A subclass gives the start state, and `advance` and `allowed` as :class:`generation.bar_automaton.Automaton` does;
    where `allowed` is None, any token may follow.
    """

    start: Any

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        special = set(tokenizer.all_special_tokens)
        self.ids = {token: i for token, i in tokenizer.get_vocab().items() if token not in special}
        self.characters = {i: token for token, i in self.ids.items()}
        self.boundaries = {tokenizer.bos_token_id, tokenizer.eos_token_id}
        self.padding = tokenizer.pad_token_id
        self.ids[END] = tokenizer.eos_token_id
        self.nodes: dict[Hashable, _Node] = {}
        self.rows: list[_Node] = []
        self.seen = torch.empty(0, 0, dtype=torch.long)

    def advance(self, state: Any, character: str) -> Any:
        raise NotImplementedError

    def allowed(self, state: Any) -> set[str] | None:
        raise NotImplementedError

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores [batch, vocabulary] with -inf for what may not follow input_ids [batch, time]."""
        if len(self.nodes) > MAX_STATES:
            self.nodes, self.rows = {}, []
        if self.rows and input_ids.shape[1] > 1 and torch.equal(input_ids[:, :-1], self.seen):
            self.rows = [self._next(row, i) for row, i in zip(self.rows, input_ids[:, -1].tolist(), strict=True)]
        else:
            self.rows = [self._read(row) for row in input_ids.tolist()]
        self.seen = input_ids.clone()
        rows = bytearray().join(self._forbidden(row, scores.shape[1]) for row in self.rows)
        forbidden = torch.frombuffer(rows, dtype=torch.bool).view(scores.shape).to(scores.device)
        scores = scores.masked_fill(forbidden, -torch.inf)
        stuck = scores.amax(dim=1, keepdim=True) == -torch.inf  # another processor has forbidden all that is allowed
        return scores.masked_fill(stuck & ~forbidden, 0.0)

    def _read(self, row: list[int]) -> _Node:
        node = self._node(self.start)
        for i in row:
            node = self._next(node, i)
        return node

    def _node(self, state: Any) -> _Node:
        if state not in self.nodes:
            self.nodes[state] = _Node(state)
        return self.nodes[state]

    def _next(self, node: _Node, i: int) -> _Node:
        if i not in node.next:
            if i in self.boundaries:
                node.next[i] = self._node(self.start)
            elif i == self.padding:
                node.next[i] = node
            else:
                node.next[i] = self._node(self.advance(node.state, self.characters.get(i, "\ufffd")))
        return node.next[i]

    def _forbidden(self, node: _Node, width: int) -> bytes:
        if len(node.forbidden) != width:
            allowed = self.allowed(node.state)
            row = bytearray([allowed is not None]) * width
            for character in allowed or ():
                row[self.ids[character]] = False
            node.forbidden = bytes(row)
        return node.forbidden


class StrictBars(_StateProcessor):
    """Lets a model write only tunes whose bars add up. `fields` are the header fields that it was trained on."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, fields: str = FIELD_ORDER) -> None:
        super().__init__(tokenizer)
        self.automaton = Automaton(self.characters.values(), fields)
        self.start = self.automaton.start

    def advance(self, state: State, character: str) -> State:
        return self.automaton.advance(state, character)

    def allowed(self, state: State) -> set[str]:
        return self.automaton.allowed(state)


class HeaderFields(_StateProcessor):
    """Forces header fields to given values, such as {"M": "6/8", "K": "Dmix"}; the model writes the others.

    Fields keep their order, and the header does not end before all given fields are written. To be applied after
    StrictBars. Raises ValueError if a field or a value cannot be written.
    """

    def __init__(self, fields: Mapping[str, str], tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(tokenizer)
        self.start = ("", "")  # the letters of the fields written, the current line; None after the header
        self.given = {letter: f"{letter}:{value}\n" for letter, value in fields.items()}
        for letter, line in self.given.items():
            if letter not in FIELD_ORDER or len(letter) != 1 or "\n" in line[:-1]:
                raise ValueError(f"{line[:-1]!r} is no header field: give one line of {', '.join(FIELD_ORDER)}")
            if unknown := set(line) - set(self.ids):
                raise ValueError(f"the model does not know the character {min(unknown)!r} of {line[:-1]}")

    def advance(self, state: tuple[str, str] | None, character: str) -> tuple[str, str] | None:
        if state is None:
            return None
        written, line = state
        if character == "\n":
            return None if line[:1] == "K" else (written + line[:1], "")
        return written, line + character if not line or line[0] in self.given else line

    def allowed(self, state: tuple[str, str] | None) -> set[str] | None:
        if state is None:
            return None
        written, line = state
        if line:
            given = self.given.get(line[0], "")
            return {given[len(line)]} if given.startswith(line) else None
        last = max(map(FIELD_ORDER.find, written), default=-1)
        letters = FIELD_ORDER[last + 1 :] if written else "X"
        next_given = min((letters.find(letter) for letter in self.given if letter in letters), default=len(letters))
        return set(letters[: next_given + 1]) & set(self.ids) or None
