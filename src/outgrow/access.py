"""Whose certificates are believed, who we say that we are, and why a server does not agree.

The laws:

1. Certificates are always verified. There is no option that turns it off.
2. A secret is never shown: it is in no `repr`, no message, and no cause of an error.
3. Files that were renewed are used from the next connection on. While the new ones do not
   fit each other yet, the old ones stay in use.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NoReturn

from outgrow.errors import ConfigurationError
from outgrow.header_fields import SENT_VALUE

#: The PEM files of an `Access`: authorities, certificate, key. Empty texts for none.
Files = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Access:
    """Whose certificates are believed, and who we say that we are.

    `ca` is a file of authorities (the system's, without it); `certificate` and `key` are
    files for servers that want to know their client. `authorize` is called with a server's
    name at each request, and gives the value of the Authorization header, or nothing.
    """

    ca: str = ""
    certificate: str = ""
    key: str = field(default="", repr=False)
    authorize: Callable[[str], str] | None = field(default=None, repr=False)

    def context(self) -> ssl.SSLContext:
        """The settings of TLS. Raises `ConfigurationError` for files that can't be used."""
        files = (self.ca, self.certificate, self.key)
        try:
            context = tls_context(*files, tuple(map(_stamp, files)))
        except ConfigurationError:
            if files not in _good:
                raise
            return _good[files]
        _good[files] = context
        return context

    def authorization(self, server: str) -> str:
        """The value of the Authorization header. Raises `NoCredentials`, which holds no secret."""
        if self.authorize is None:
            return ""
        try:
            value = self.authorize(server)
        except NoCredentials:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a vault raises
            # What it says may hold the secret, and would be logged as the cause.
            raise NoCredentials(
                f"its credentials were not to be had: the option 'credentials' raised "
                f"{type(error).__name__}"
            ) from None
        if not SENT_VALUE.match(value):
            raise NoCredentials("its credentials hold a character that no header can hold")
        return value


class NoCredentials(Exception):
    """There are no usable credentials for a server; the text says why."""


#: For each set of files what they gave when they last fitted each other.
_good: dict[Files, ssl.SSLContext] = {}


@lru_cache(maxsize=64)
def tls_context(
    ca: str = "",
    certificate: str = "",
    key: str = "",
    stamps: tuple[object, ...] = (),  # noqa: ARG001 - part of what is remembered
) -> ssl.SSLContext:
    """The settings of TLS, with verification on.

    `stamps` tells versions of the files apart. Raises `ConfigurationError`, whose path is
    the option: ``ca``, ``certificate`` or ``key``.
    """
    if ca:
        _look("ca", ca, "CERTIFICATE-----")
    context = ssl.create_default_context(cafile=ca or None)
    if not certificate:
        return context
    _look("certificate", certificate, "CERTIFICATE-----")
    option, file = ("key", key) if key else ("certificate", certificate)
    if "ENCRYPTED" in _look(option, file, "PRIVATE KEY-----"):
        hint = "Write the key to a file without a passphrase, for the site's user alone to read."
        raise ConfigurationError(option, f"{file} is protected by a passphrase.", hint)
    try:
        # Without a password OpenSSL would ask for one at the terminal, and wait.
        context.load_cert_chain(certificate, key or None, password="")
    except ssl.SSLError as error:
        _misfit(option, error)
    return context


def _look(option: str, file: str, mark: str) -> str:
    """The text of a PEM file. Raises `ConfigurationError`."""
    try:
        with open(file, encoding="latin-1") as stream:
            text = stream.read()
    except OSError as error:
        hint = "It must be a file that the site's user can read."
        raise ConfigurationError(option, f"{file}: {error.strerror}.", hint) from error
    if mark not in text:
        what = "private key" if "KEY" in mark else "certificate"
        raise ConfigurationError(option, f"{file} holds no {what}.", "Give a file in PEM format.")
    if mark == "CERTIFICATE-----":
        _parse(option, file, text)
    return text


def _parse(option: str, file: str, text: str) -> None:
    try:
        ssl.create_default_context(cadata=text)
    except (ssl.SSLError, ValueError):
        problem = f"{file} holds a certificate that is damaged."
        raise ConfigurationError(option, problem, "Copy it anew, in PEM format.") from None


def _misfit(option: str, error: ssl.SSLError) -> NoReturn:
    if error.reason == "KEY_VALUES_MISMATCH":
        hint = "Give the key that the certificate was made with."
        raise ConfigurationError(option, "does not fit the certificate.", hint) from None
    problem = f"can't be used: {error.reason or error}."
    raise ConfigurationError(option, problem, "Give files in PEM format.") from None


def _stamp(file: str) -> tuple[int, ...]:
    """What changes when a file is renewed, by another content or by another file."""
    if not file:
        return ()
    try:
        found = os.stat(file)
    except OSError:
        return (0,)
    return found.st_mtime_ns, found.st_ino, found.st_size


# --- what a server, or OpenSSL, says


#: What is to be done about a server's certificate, by X509_V_ERR_... of OpenSSL.
_REMEDIES: Final[dict[int, str]] = {
    9: "it is not valid yet: compare the clocks of both machines",
    10: "renew it on that server",
    18: "it vouches for itself: set the option 'ca' to the file of that certificate",
    **dict.fromkeys(
        (2, 19, 20, 21), "its authority is not known here: set the option 'ca' to its file"
    ),
    **dict.fromkeys(
        (62, 64), "write the name that the certificate is for in 'servers', or give it this one"
    ),
}

#: What alerts mean for a client (RFC 8446 §6.2), by a part of OpenSSL's name of them.
_ALERTS: Final[tuple[tuple[str, str], ...]] = (
    (
        "CERTIFICATE_REQUIRED",
        "it wants a certificate of its client: set the options 'certificate' and 'key'",
    ),
    ("CERTIFICATE_EXPIRED", "it says that our certificate has expired: renew 'certificate'"),
    ("CERTIFICATE_REVOKED", "it says that our certificate was revoked: renew 'certificate'"),
    ("UNKNOWN_CA", "it does not know the authority of our certificate: look at 'certificate'"),
    ("BAD_CERTIFICATE", "it does not accept our certificate: look at 'certificate'"),
    ("CERTIFICATE_UNKNOWN", "it does not accept our certificate: look at 'certificate'"),
    ("UNSUPPORTED_CERTIFICATE", "it does not accept our certificate: look at 'certificate'"),
    ("ACCESS_DENIED", "it does not let the owner of our certificate in: look at its rules"),
    ("PROTOCOL_VERSION", "it speaks no TLS that is safe today: let it speak 1.2 or 1.3"),
)


#: Those that a server may send when it has seen its client's certificate.
_ABOUT_CLIENT: Final = ("CERTIFICATE", "ALERT_UNKNOWN_CA", "ACCESS_DENIED")


def refusal(error: BaseException | None, *, has_certificate: bool, handshaking: bool = True) -> str:
    """Why TLS was refused, and what to do about it; empty for other errors.

    A server of TLS 1.3 says what it thinks of its client's certificate when the client
    believes the handshake to be over, and may have sent its first request (RFC 8446
    §4.4.2.4). It has not carried out any of it. No other error says that: behind the
    handshake (not `handshaking`) only these count.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = _REMEDIES.get(error.verify_code, "")
        text = f"its certificate is not accepted: {error.verify_message}"
        return f"{text} ({remedy})" if remedy else text
    if not isinstance(error, ssl.SSLError):
        return ""
    reason = getattr(error, "reason", None) or ""  # made by hand it has none
    if not handshaking and not any(part in reason for part in _ABOUT_CLIENT):
        return ""
    if reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}:
        return "no TLS connection: what answers there does not speak TLS (is it http://?)"
    if "ALERT_HANDSHAKE_FAILURE" in reason and not has_certificate:
        # TLS 1.2 has no alert of its own for it.
        reason = "CERTIFICATE_REQUIRED"
    found = (text for part, text in _ALERTS if part in reason)
    return next(found, "")
