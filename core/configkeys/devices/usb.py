"""usb: devices of the host's buses, by vendor and product; all of them when neither is given."""

from __future__ import annotations

from core.configkeys.devices.schema import OWNER, DeviceType, boolean, hex_id

USB = DeviceType("usb", {"vendorid": hex_id, "productid": hex_id, "required": boolean, **OWNER})
