"""The protocol to simulate when nobody names one."""

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.signals.base import SignalModel


def default_protocol(signal: type[SignalModel]) -> Acquisition:
    """The signal's own default protocol, a common scan at 3 T.

    Raises
    ------
    InputError
        When the signal has none.
    """
    if signal.default_protocol is None:
        needs = ", ".join(f"--{name}" for name in signal.requires)
        raise InputError(f"no protocol was given and {signal.__name__} has no default one; give files with {needs}")
    return signal.default_protocol
