"""The link types of captures: those that are read, and the names of others (www.tcpdump.org/linktypes.html)."""

from __future__ import annotations

__all__ = ["COOKED", "COOKED_2", "ETHERNET", "LOOP", "NULL", "RAW", "READ", "link_name"]

NULL, ETHERNET, COOKED, LOOP, COOKED_2 = 0, 1, 113, 108, 276
RAW = (12, 14, 101, 228, 229)
READ = frozenset([NULL, ETHERNET, COOKED, LOOP, COOKED_2, *RAW])
NAMES = {
    6: "Token Ring",
    7: "ARCNET",
    8: "SLIP",
    9: "PPP",
    10: "FDDI",
    11: "ATM",
    50: "PPP in HDLC",
    51: "PPPoE without Ethernet",
    104: "Cisco HDLC",
    105: "IEEE 802.11, Wi-Fi",
    107: "Frame Relay",
    109: "OpenBSD enc",
    117: "OpenBSD pflog",
    119: "Wi-Fi with Prism headers",
    122: "IP over Fibre Channel",
    127: "Wi-Fi with radiotap headers",
    129: "Linux ARCNET",
    138: "IP over IEEE 1394",
    143: "DOCSIS",
    163: "Wi-Fi with AVS headers",
    166: "Linux pppd",
    187: "Bluetooth HCI",
    189: "USB",
    192: "PPI",
    195: "IEEE 802.15.4",
    201: "Bluetooth HCI with directions",
    204: "PPP with directions",
    220: "USB, padded",
    224: "Fibre Channel",
    226: "Solaris ipnet",
    227: "CAN",
    239: "Linux nflog",
    242: "IP over InfiniBand",
    247: "InfiniBand",
    249: "USBPcap",
    252: "Wireshark's exported PDUs",
    253: "Linux netlink",
    258: "Apple pktap",
    271: "vsock",
}


def link_name(link: int) -> str:
    """What people call a link type, with its number."""
    return f"{NAMES.get(link, 'an unknown link type')} ({link})"
