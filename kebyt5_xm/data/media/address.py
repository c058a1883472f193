"""Checks the URLs in rows and opens them through fsspec.

A URL may be a chain, such as `zip://a.png::https://example.org/all.zip`: every link but the last unpacks or
caches the file of the next link. Without `allow_outside` the last link must use one of `REMOTE_PROTOCOLS` and every
other link one of `WRAPPER_PROTOCOLS`. So no chain ends at a local file. http(s) then connects to public addresses
only, redirects included.
"""

import base64
import binascii
import io
import ipaddress
import re
import socket
import string
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast
from urllib.parse import unquote

import numpy as np

from kebyt5_xm.data.media.bad_sample import MediaError, MediaRefusal
from kebyt5_xm.errors import UserError

REMOTE_PROTOCOLS = ("http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "hf")
"""fsspec protocols whose host is on the web, or is configured by the user instead of the URL."""
WRAPPER_PROTOCOLS = ("zip", "tar", "simplecache", "filecache", "blockcache")
"""fsspec protocols that read only from the next link of a chain."""
DATA_SCHEME = "data:"
NO_DIGIT = 16
HEX_DIGITS = np.full(256, NO_DIGIT, np.uint8)
"""The value of each byte as a hexadecimal digit."""
for _digits in (b"0123456789abcdef", b"0123456789ABCDEF"):
    HEX_DIGITS[list(_digits)] = range(16)
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052, section 2.1: the last 32 bits are an IPv4 address


@dataclass(frozen=True)
class RemoteUrl:
    """A URL that passed the checks. fsspec opens only these, never a plain string; `resolve` makes them.

    `public`: http(s) may connect to public internet addresses only.
    """

    url: str
    public: bool = False

    @property
    def name(self) -> str:
        """The file name in the first link that has one, without the query."""
        paths = [link.partition("://")[2] for link in self.url.split("::")]
        path = next((path for path in paths if path), "")
        web = self.url.startswith(("http://", "https://"))
        return unquote(re.split("[?#]", path)[0]) if web else path


def check_url(url: str, allow_remote: bool, allow_outside: bool) -> RemoteUrl:
    """Return the URL of a row, checked; raise `MediaError` if it may not be opened."""
    if not allow_remote:
        raise MediaError(url, "found a URL, expected a local path; set allow_remote to permit it")
    # Schemes are case-insensitive (RFC 3986, section 3.1); fsspec knows the lower-case ones.
    links = [re.sub(r"^[A-Za-z][A-Za-z0-9+.-]*(?=://|$)", lambda m: m[0].lower(), p) for p in url.split("::")]
    *wrappers, last = links
    ends_remote = last.partition("://")[0] in REMOTE_PROTOCOLS and last.partition("://")[2]
    if not allow_outside and not (
        ends_remote and all(w.partition("://")[0] in WRAPPER_PROTOCOLS for w in wrappers)
    ):
        raise MediaError(
            url,
            f"found a URL that may reach this machine's files or network, expected {', '.join(REMOTE_PROTOCOLS)}, "
            f"optionally behind {', '.join(WRAPPER_PROTOCOLS)} and ::; set allow_outside to permit any",
        )
    return RemoteUrl("::".join(links), public=not allow_outside)


def is_data_url(reference: str) -> bool:
    """Return whether a reference is a `data:` URL, which contains the file itself."""
    return reference[: len(DATA_SCHEME)].lower() == DATA_SCHEME


def unquote_bytes(encoded: bytes) -> bytes:
    """Return bytes with %XX decoded (RFC 3986, section 2.1).

    urllib's takes a hundred bytes of memory for each %: a gigabyte for a body of 32 MB.
    """
    given = np.frombuffer(encoded, np.uint8)
    places = np.flatnonzero(given[:-2] == ord("%"))
    high, low = HEX_DIGITS[given[places + 1]], HEX_DIGITS[given[places + 2]]
    are_digits = (high < NO_DIGIT) & (low < NO_DIGIT)
    places = places[are_digits]
    decoded, kept = given.copy(), np.ones(len(given), bool)
    decoded[places] = 16 * high[are_digits] + low[are_digits]
    kept[places + 1] = kept[places + 2] = False
    return decoded[kept].tobytes()


def decode_data_url(url: str) -> bytes:
    """Return the bytes in a `data:` URL (RFC 2397); raise `MediaError` if there are none."""
    head, comma, body = url.partition(",")
    raw = unquote_bytes(body.encode())
    try:
        if not comma:
            raise binascii.Error("there is no comma")
        if head.rstrip().lower().endswith(";base64"):
            raw = raw.translate(bytes.maketrans(b"-_", b"+/"), delete=string.whitespace.encode()).rstrip(b"=")
            raw = base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
    except binascii.Error as error:
        raise MediaError(url, f"found a data: URL that cannot be decoded ({error})") from error
    if not raw:
        raise MediaError(url, "found a data: URL without data")
    return raw


@contextmanager
def open_remote(source: RemoteUrl) -> Iterator[BinaryIO]:
    """Open the file behind a URL. Raises fsspec's errors, and `UserError` if a library is missing."""
    import fsspec

    options: dict[str, Any] = {}
    if source.public:
        first, *others = [link.partition("://")[0] for link in source.url.split("::")]
        options = {"get_client": create_public_client} if first in ("http", "https") else {}
        options |= {
            name: {"get_client": create_public_client} for name in others if name in ("http", "https")
        }
    try:
        filesystem, path = fsspec.url_to_fs(source.url, **options)
    except ImportError as error:
        raise UserError(f"found the URL {source.url[:200]}, which needs a library: {error}") from error
    # An archive's file system closes the archive when it is collected, so it has to outlive the stream.
    with filesystem.open(path, "rb") as stream:
        # A page without a length cannot seek, so it is read as a whole.
        yield cast(BinaryIO, stream) if stream.seekable() else io.BytesIO(stream.read())


async def create_public_client(**options: Any) -> Any:
    """Return an aiohttp session that connects to public addresses only, also after redirects."""
    import aiohttp

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(socket_factory=_create_public_socket), **options
    )


def is_public(address: str) -> bool:
    """Return whether an IPv4 or IPv6 address, and any address embedded in it, is on the public internet."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        wrapped = found.ipv4_mapped or found.sixtofour or (found.teredo or (None, None))[1]
        if found in NAT64:
            wrapped = ipaddress.IPv4Address(int(found) & 0xFFFF_FFFF)
        if wrapped is not None:
            return is_public(str(wrapped))
    return found.is_global and not found.is_multicast and not found.is_reserved


def _create_public_socket(info: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, place = info
    if not is_public(place[0]):
        raise MediaRefusal(
            f"found the address {place[0]}, expected one on the public internet; set allow_outside to permit it"
        )
    return socket.socket(family, kind, protocol)
