"""What a template sees, and what it may still spend."""

from __future__ import annotations

from collections.abc import Mapping

from services.image.templates.values import TemplateError, Value

MOST_STEPS = 200_000
MOST_BYTES = 8 << 20


class Budget:
    """Steps and bytes that are left to all templates of one run."""

    def __init__(self, steps: int = MOST_STEPS, size: int = MOST_BYTES) -> None:
        self._steps, self._size = steps, size

    def step(self) -> None:
        """Raises: TemplateError when there were too many."""
        self._steps -= 1
        if self._steps < 0:
            raise TemplateError("the template takes too many steps")

    def spend(self, size: int) -> None:
        """Account for text that is about to be made. Raises: TemplateError."""
        self._size -= max(0, size)
        if self._size < 0:
            raise TemplateError(f"the template makes more than {MOST_BYTES} bytes")


class Scope:
    """Names and their values; what a block sets does not leave it."""

    def __init__(
        self, public: Mapping[str, Value], budget: Budget, own: Mapping[str, Value] | None = None
    ) -> None:
        self._public, self.budget = public, budget
        self._own = dict(own or {})
        self.escapes = False

    def child(self) -> Scope:
        made = Scope(self._public, self.budget, self._own)
        made.escapes = self.escapes
        return made

    def set(self, name: str, value: Value) -> None:
        self._own[name] = value

    def find(self, name: str) -> Value:
        return self._own[name] if name in self._own else self._public.get(name)
