"""Wire the room of what lies and runs inside: files, templates, the guest API. A part of app.py."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from core.service import Servicers
from protos.podium.runtime.v1 import about_pb2_grpc, guest_pb2_grpc, previous_pb2_grpc, sftp_pb2_grpc
from services.runtime.domain.target import Target
from services.runtime.kernel import planting, sftp
from services.runtime.servicer.about import InstanceAboutServicer
from services.runtime.servicer.guest import GuestServicer
from services.runtime.servicer.previous import PreviousServicer
from services.runtime.servicer.sftp import SftpServicer
from services.runtime.storage import beside
from services.runtime.usecases.host import Host
from services.runtime.usecases.inside.files import Roots
from services.runtime.usecases.inside.guest import Guests
from services.runtime.usecases.inside.sftp import SftpSessions
from services.runtime.usecases.instances.abouts import AboutInstances
from services.runtime.usecases.instances.templates import Templates

Find = Callable[[str, str], Awaitable[Target]]


@dataclass(frozen=True)
class Inside:
    host: Host
    abouts: AboutInstances
    templates: Templates
    roots: Roots

    @classmethod
    def wired(cls, host: Host) -> Inside:
        abouts = AboutInstances(host, beside)
        return cls(host, abouts, Templates(host, abouts, planting), Roots(host.store, host))

    def serve(self, servicers: Servicers, find: Find) -> None:
        telling = InstanceAboutServicer(self.host.store, self.abouts)
        servicers.add(about_pb2_grpc.add_InstanceAboutServiceServicer_to_server, telling)
        guests = GuestServicer(Guests(self.host))
        servicers.add(guest_pb2_grpc.add_GuestServiceServicer_to_server, guests)
        sessions = SftpServicer(SftpSessions(self.host.store, self.roots, sftp.start), find)
        servicers.add(sftp_pb2_grpc.add_SftpServiceServicer_to_server, sessions)
        before = PreviousServicer(self.host)
        servicers.add(previous_pb2_grpc.add_PreviousServiceServicer_to_server, before)
