"""Wire the room of what guests are given: their templates, and the guest API. A part of app.py."""

from __future__ import annotations

from dataclasses import dataclass

from core.service import Servicers
from protos.podium.runtime.v1 import about_pb2_grpc, guest_pb2_grpc
from services.runtime.kernel import planting
from services.runtime.servicer.about import InstanceAboutServicer
from services.runtime.servicer.guest import GuestServicer
from services.runtime.storage import beside
from services.runtime.usecases.abouts import AboutInstances
from services.runtime.usecases.guest import Guests
from services.runtime.usecases.host import Host
from services.runtime.usecases.templates import Templates


@dataclass(frozen=True)
class Inside:
    host: Host
    abouts: AboutInstances
    templates: Templates

    @classmethod
    def wired(cls, host: Host) -> Inside:
        abouts = AboutInstances(host, beside)
        return cls(host, abouts, Templates(host, abouts, planting))

    def serve(self, servicers: Servicers) -> None:
        telling = InstanceAboutServicer(self.host.store, self.abouts)
        servicers.add(about_pb2_grpc.add_InstanceAboutServiceServicer_to_server, telling)
        guests = GuestServicer(Guests(self.host))
        servicers.add(guest_pb2_grpc.add_GuestServiceServicer_to_server, guests)
