"""Which addresses are on the public Internet, told from own tables.

Pure. Warning: `ipaddress.is_global` alone is not enough: it depends on the Python version (192.0.0.192 is global to 3.11), and
it takes 168.63.129.16, the host agent of a cloud, for any other public address.
"""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_V4 = {
    "0.0.0.0/8": "this host",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "shared by carriers",
    "127.0.0.0/8": "loopback",
    "169.254.0.0/16": "link-local, where clouds serve metadata",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "protocol assignments",
    "192.0.2.0/24": "documentation",
    "192.88.99.0/24": "6to4 relay",
    "192.168.0.0/16": "private",
    "198.18.0.0/15": "benchmarking",
    "198.51.100.0/24": "documentation",
    "203.0.113.0/24": "documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
    "168.63.129.16/32": "cloud host agent",
}
_V6 = {
    "::/128": "unspecified",
    "::1/128": "loopback",
    "fe80::/10": "link-local",
    "fc00::/7": "unique local",
    "ff00::/8": "multicast",
    "2001::/23": "protocol assignments",
    "2001:db8::/32": "documentation",
    "2002::/16": "6to4, which hides an IPv4 address",
    "3fff::/20": "documentation",
}
_DENIED = [(ipaddress.ip_network(network), reason) for network, reason in (_V4 | _V6).items()]

_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

_NEIGHBOURS = [
    ipaddress.ip_network(network) for network in ("10.0.0.0/8", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
]
_METADATA = ipaddress.ip_network("fd00:ec2::/32")


def unwrap(address: Address) -> Address:
    """The IPv4 address inside a mapped (`::ffff:a.b.c.d`) or NAT64 (`64:ff9b::a.b.c.d`) one: that is where packets go."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def why_not_global(address: Address) -> str | None:
    """What an unwrapped address is, when it is not an ordinary public one; None when it is."""
    for network, reason in _DENIED:
        if address in network:
            return reason
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_V6:
        return "outside global unicast"
    return None if address.is_global else "not global"


def is_neighbour(address: Address) -> bool:
    """Private, loopback or unique local: what a name listed by the operator may answer with."""
    return address not in _METADATA and any(address in network for network in _NEIGHBOURS)
