"""How tenants share places that are few. Pure.

Rules:
  1. Who is alone may have all places: one who holds none and has asked for none in the last `ABOUT_S` keeps
     nobody waiting.
  2. Otherwise the last quarter of the places (at least one, where there are two) goes only to those who hold
     fewer than an equal share: places / tenants who hold one or have asked for one in that time.
  3. `ABOUT_S` is longer than any time to come back that a refusal names. So who came when all was taken and
     comes back then finds that what became free meanwhile was kept for him.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

ABOUT_S = 120.0
KEPT = 4
"""One in so many places is kept for those who hold little."""


def for_all(places: int) -> int:
    """How many anybody may take."""
    return places - (max(1, places // KEPT) if places > 1 else 0)


def must_end(held: int, about: int, used: int, places: int) -> int:
    """Somebody who holds `held` asks for one more. How many of the `used` have to end before that is just; 0:
    none. about: how many tenants share the places."""
    just = used < for_all(places) or about == 1 or held * about < places
    return 0 if just else used - for_all(places) + 1


class Asked:
    """Who has asked for a place, and when last."""

    def __init__(self) -> None:
        self._asked_s: dict[str, float] = {}

    def note(self, tenant: str, now_s: float) -> None:
        """The tenant asks."""
        self._asked_s[tenant] = now_s

    def about(self, holders: Collection[str], now_s: float) -> int:
        """How many tenants hold a place or have asked for one in the last `ABOUT_S`."""
        since_s = now_s - ABOUT_S
        self._asked_s = {tenant: asked_s for tenant, asked_s in self._asked_s.items() if asked_s >= since_s}
        return len(self._asked_s.keys() | set(holders))


class Shares:
    """Who holds how many, and who has asked. Asking costs O(1) while more than the kept places are free."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._held: dict[str, int] = {}
        self._asked = Asked()

    def held(self, tenant: str) -> int:
        return self._held.get(tenant, 0)

    def take(self, tenant: str) -> None:
        self._held[tenant] = self.held(tenant) + 1

    def leave(self, tenant: str) -> None:
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]

    def must_end(self, tenant: str, used: int, places: int) -> int:
        """The tenant asks for one more. How many of the `used` have to end before that is just; 0: none."""
        now_s = self._now()
        self._asked.note(tenant, now_s)
        if used < for_all(places):
            return 0
        return must_end(self.held(tenant), self._asked.about(self._held, now_s), used, places)
