"""Says whether an address stays on this machine."""

import ipaddress


def is_loopback(host: str) -> bool:
    """True for `localhost` and loopback addresses; any other name may be anywhere."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
