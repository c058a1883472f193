"""An encoder's file whose library is not installed, as ours tell it."""

from kebyt5_xm.errors import UserError

try:
    import no_such_library
except ImportError as error:
    raise UserError("found no library, which Encoder needs; run: pip install 'kebyt5-xm[image]'") from error

Encoder = no_such_library.Encoder
