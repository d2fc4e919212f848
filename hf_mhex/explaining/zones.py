"""Zones of a signal: named intervals of its axis, and what each contributes to the logit.

A map's sum over zones that tile the axis is its sum over the points, so zones add up to the logit as exactly as the map
does, from the same one pass.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from os import PathLike
from pathlib import Path

import numpy as np

from hf_mhex.data.tables import encoding_of, separator_of
from hf_mhex.modeling.mhex_config import check_axis


@dataclass(frozen=True)
class Zone:
    """A named interval [start, stop) of the axis, start below stop whichever way the axis runs."""

    name: str
    start: float
    stop: float

    @property
    def width(self) -> float:
        """In the axis' unit."""
        return self.stop - self.start


@dataclass(frozen=True)
class ZoneRow:
    """What a zone contributes: the sum of the map over its points, its share of all zones' absolute sums, and a width.

    Args:
        points: how many points of the axis lie in the zone.
        share: |contribution| over the sum of all zones' |contribution|.
        per_width: contribution over the zone's width, in logits a unit of the axis.
    """

    name: str
    start: float
    stop: float
    points: int
    contribution: float
    share: float
    per_width: float


class Zones(Sequence):
    """Zones on an axis: sorted by their start, without overlap, each with a point of the axis.

    The zone that ends at the axis' last place holds that point too.

    Args:
        zones: `Zone`s, or (name, start, stop).
        axis: the points' places [L], rising or falling; see `hf_mhex.pictures.signals.axis_of`.

    Raises ValueError, naming the zone, for bounds that are no interval, unsorted or overlapping zones, zones outside
    the axis, zones without a point, and names that are given twice.
    """

    def __init__(self, zones: Sequence[Zone | tuple[str, float, float]], axis: Sequence[float]):
        self.axis = np.asarray(axis, dtype=np.float64)
        if self.axis.ndim != 1:
            raise ValueError(f"axis must be a list of places, got shape {list(self.axis.shape)}.")
        check_axis(self.axis.tolist())
        self.zones = tuple(zone if isinstance(zone, Zone) else Zone(*zone) for zone in zones)
        if not self.zones:
            raise ValueError("zones must hold at least one zone.")
        low, high = self.axis.min(), self.axis.max()
        for zone in self.zones:
            if not (math.isfinite(zone.start) and math.isfinite(zone.stop) and zone.start < zone.stop):
                raise ValueError(
                    f"zone {zone.name!r} must start below its stop, whichever way the axis runs, got "
                    f"[{zone.start}, {zone.stop}); swap or mend the two."
                )
            if zone.start < low or zone.stop > high:
                raise ValueError(
                    f"zone {zone.name!r} [{zone.start}, {zone.stop}) lies outside the axis, {low} to {high}; cut it."
                )
        for before, after in zip(self.zones, self.zones[1:]):
            if after.start < before.start:
                raise ValueError(
                    f"zones must be sorted by their start, but {after.name!r}, from {after.start}, follows "
                    f"{before.name!r}, from {before.start}; sort them."
                )
            if after.start < before.stop:
                raise ValueError(
                    f"zones must not overlap, but {after.name!r} starts at {after.start}, before {before.name!r} stops "
                    f"at {before.stop}; let one stop where the next starts."
                )
        names = [zone.name for zone in self.zones]
        if len(set(names)) < len(names):
            raise ValueError(f"zones must have names of their own, got {names}; rename those that are alike.")
        self.members = np.stack([self._members(zone, high) for zone in self.zones])  # [Z, L]
        for zone, inside in zip(self.zones, self.members):
            if not inside.any():
                raise ValueError(f"zone {zone.name!r} holds no point of the axis; make it wider.")

    def _members(self, zone: Zone, high: float) -> np.ndarray:
        return (self.axis >= zone.start) & ((self.axis < zone.stop) | ((zone.stop == high) & (self.axis == high)))

    def __len__(self) -> int:
        return len(self.zones)

    def __getitem__(self, place):
        return self.zones[place]

    def __iter__(self) -> Iterator[Zone]:
        return iter(self.zones)

    @property
    def names(self) -> list[str]:
        """The zones' names."""
        return [zone.name for zone in self.zones]

    @property
    def tile(self) -> bool:
        """Whether every point of the axis lies in a zone."""
        return bool(self.members.any(0).all())

    def contributions(self, saliency) -> np.ndarray:
        """The sums of maps [..., L] over each zone's points, [..., Z], in float64.

        Raises ValueError for maps of another length, and of values that are not finite.
        """
        values = np.asarray(saliency, dtype=np.float64)
        if values.shape[-1:] != self.axis.shape:
            raise ValueError(f"saliency must have the axis' {len(self.axis)} points, got shape {list(values.shape)}.")
        if not np.isfinite(values).all():
            raise ValueError("saliency must be finite, got NaN or infinity; check the signals.")
        return values @ self.members.T

    def table(self, saliency) -> list[ZoneRow]:
        """One map [L] by zones, the largest contribution first."""
        sums = self.contributions(saliency)
        total = np.abs(sums).sum() or 1.0
        rows = [
            ZoneRow(
                zone.name, zone.start, zone.stop, int(inside.sum()), float(one), float(abs(one) / total),
                float(one / zone.width),
            )
            for zone, inside, one in zip(self.zones, self.members, sums)
        ]  # fmt: skip
        return sorted(rows, key=lambda row: -row.contribution)


def equal_zones(axis: Sequence[float], count: int) -> Zones:
    """`count` zones of equal width that tile an axis; ValueError for more zones than points."""
    if type(count) is not int or not 1 <= count <= len(axis):
        raise ValueError(f"count must be an int in [1, {len(axis)}], got {count!r}.")
    return _tiles(axis, np.linspace(min(axis), max(axis), count + 1))


def valley_zones(axis: Sequence[float], saliency, count: int = 10) -> Zones:
    """At most `count` zones that tile an axis, parted at the deepest valleys of maps [L] or [N, L].

    A valley is a minimum of the mean absolute map, smoothed over 1/(4 count) of the axis. Raises ValueError for maps of
    another length and for a count below 1.
    """
    from scipy.signal import find_peaks

    if type(count) is not int or not 1 <= count <= len(axis):
        raise ValueError(f"count must be an int in [1, {len(axis)}], got {count!r}.")
    values = np.abs(np.atleast_2d(np.asarray(saliency, dtype=np.float64))).mean(0)
    if len(values) != len(axis) or not np.isfinite(values).all():
        raise ValueError(f"saliency must be finite maps of the axis' {len(axis)} points, got {np.shape(saliency)}.")
    window = max(1, len(axis) // (4 * count))
    smooth = np.convolve(np.pad(values, window // 2, mode="edge"), np.ones(window) / window, "same")
    smooth = smooth[window // 2 : window // 2 + len(axis)]
    places, found = find_peaks(-smooth, prominence=0, distance=max(1, window))
    deepest = np.sort(places[np.argsort(-found["prominences"], kind="stable")[: count - 1]])
    points = np.asarray(axis, dtype=np.float64)
    return _tiles(points, np.unique([points.min(), *points[deepest], points.max()]))


def _tiles(axis, borders) -> Zones:
    named = [(f"{start:g} to {stop:g}", float(start), float(stop)) for start, stop in pairwise(borders)]
    return Zones(named, axis)


def read_zones(path: str | PathLike, axis: Sequence[float]) -> Zones:
    """Zones of a CSV file with the columns name, start and stop; commas, semicolons or tabs separate them.

    Raises ValueError for a file of another form, and what `Zones` raises.
    """
    encoding = encoding_of(Path(path))
    with open(Path(path), newline="", encoding=encoding) as file:
        rows = list(csv.DictReader(file, delimiter=separator_of(Path(path), encoding)))
    if not rows or not {"name", "start", "stop"} <= rows[0].keys():
        raise ValueError(f"{path} must be a CSV file with the columns name, start and stop.")
    for number, row in enumerate(rows, 2):
        for name in ("start", "stop"):
            try:
                float(row[name])
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"{path}, line {number}: {name} of zone {row['name']!r} must be a place on the axis, got "
                    f"{row[name]!r}; write a number."
                ) from error
    try:
        return Zones([(row["name"], float(row["start"]), float(row["stop"])) for row in rows], axis)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
