"""The account of characters: what was dropped from a text and what was added to it, by reason."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Ledger:
    """Characters dropped from a text and added to it, by reason."""

    dropped: Counter[str] = field(default_factory=Counter)
    added: Counter[str] = field(default_factory=Counter)

    def drop(self, reason: str, count: int) -> None:
        """Note `count` characters as dropped."""
        if count:
            self.dropped[reason] += count

    def change(self, reason: str, before: str, after: str) -> str:
        """Note that `before` was replaced by `after`, if it was, and return `after`."""
        if before != after:
            self.drop(reason, len(before))
            self.added.update({reason: len(after)} if after else {})
        return after

    def balanced(self, before: int, after: int) -> bool:
        """Return whether `before` characters, less the dropped, with the added, are `after` characters."""
        return before - self.dropped.total() + self.added.total() == after

    def add(self, other: "Ledger") -> None:
        """Add what another has noted."""
        self.dropped.update(other.dropped)
        self.added.update(other.added)
