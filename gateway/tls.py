"""TLS 1.3 that asks for a client certificate and takes any: the trust store decides, not a CA.

CPython's ssl has no verify callback (python/cpython#75425), so SSL_CTX_set_verify is reached through
the context object's first field. The layout is checked before it is used, and refused if unexpected.
"""

from __future__ import annotations

import _ssl
import ctypes
import ssl
from pathlib import Path

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
# Must outlive every context that points to it.
_accept_any = _Callback(lambda ok, store: 1)


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Raises: RuntimeError when this interpreter's SSLContext has an unknown layout."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_OPTIONAL
    library = ctypes.CDLL(_ssl.__file__)
    library.SSL_CTX_get_verify_mode.argtypes = [ctypes.c_void_p]
    library.SSL_CTX_get_verify_mode.restype = ctypes.c_int
    library.SSL_CTX_set_verify.argtypes = [ctypes.c_void_p, ctypes.c_int, _Callback]
    library.SSL_CTX_set_verify.restype = None
    address = id(context) + object.__basicsize__
    pointer = ctypes.cast(address, ctypes.POINTER(ctypes.c_void_p))[0]
    if library.SSL_CTX_get_verify_mode(pointer) != int(ssl.CERT_OPTIONAL):
        raise RuntimeError("unexpected layout of SSLContext; client certificates cannot be asked for")
    library.SSL_CTX_set_verify(pointer, int(ssl.CERT_OPTIONAL), _accept_any)
    return context
