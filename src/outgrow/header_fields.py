"""What the names and the values of HTTP's header fields may be made of."""

from __future__ import annotations

import re
from typing import Final

#: RFC 9110, 5.1: the name of a field is a token (5.6.2).
NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")

#: RFC 9110, 5.5: visible characters, spaces and tabs; what is not ASCII has no meaning.
VALUE: Final = re.compile(r"[\x20-\x7e\t]*\Z")

#: The same as it is sent: spaces and tabs at its ends are not part of a value (5.5).
SENT_VALUE: Final = re.compile(r"(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?\Z")
