"""What actions take of a machine, and which of them may run at the same time. Pure: nothing is measured here."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.records import record


@record
class Resources:
    """What an action takes while it runs, or what a machine has to give.

    cores: busy at the same time. memory_bytes: at most at one time. disk_bytes: to be written, and kept afterwards.
    """

    cores: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0

    def fits(self, room: Resources) -> bool:
        """Is there enough of everything?"""
        return (
            self.cores <= room.cores
            and self.memory_bytes <= room.memory_bytes
            and self.disk_bytes <= room.disk_bytes
        )  # fmt: skip

    def without(self, taken: Resources) -> Resources:
        """What is left, never less than nothing."""
        return Resources(
            max(0, self.cores - taken.cores),
            max(0, self.memory_bytes - taken.memory_bytes),
            max(0, self.disk_bytes - taken.disk_bytes),
        )


def may_start(need: Resources, before: Iterable[Resources], limits: Resources) -> bool:
    """May an action start beside those before it, which run already or have waited for longer?

    Whoever waits has its share kept free, so that small actions cannot pass a large one for ever. An action that needs
    more than there is takes everything: it runs alone, since refusing it would end the build and trying it may not.
    """
    room = limits
    for other in before:
        room = room.without(_share(other, limits))
    return _share(need, limits).fits(room)


def spread(machine: Resources, machines: int) -> Resources:
    """What several machines like one have together, at least that one; they write to the same disk."""
    times = max(1, machines)
    return Resources(machine.cores * times, machine.memory_bytes * times, machine.disk_bytes)


def scarce_for(need: Resources, machine: Resources) -> tuple[str, ...]:
    """What of a machine a task takes more than half of, so that no second one like it fits beside it.

    Never the disk: its room is claimed when a file is begun, so whoever comes too late is told at once.
    """
    taken = {"cores": (need.cores, machine.cores), "memory": (need.memory_bytes, machine.memory_bytes)}
    return tuple(name for name, (wanted, there) in taken.items() if 2 * wanted > there)


def _share(need: Resources, limits: Resources) -> Resources:
    return need if need.fits(limits) else limits
