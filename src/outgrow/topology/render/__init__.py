"""Configurations as values: each module renders one target and writes nothing.

A renderer yields `File`s; one function (`outgrow.topology.write.write`) puts them
on a disk. A new target is a module with a function `render`.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class File:
    """One file to write: its path below the folder that is written, and its text.

    A `private` one holds a secret: others can't read it. An `executable` one is a program.
    """

    name: str
    content: str = field(repr=False)
    private: bool = False
    executable: bool = False
