"""The gRPC face: convert, call, convert."""

from __future__ import annotations

from typing import Any

from core.operations.runner import Runner
from core.operations.servicer import answer
from core.records import Certificate, Project
from protos.podium.cluster.v1 import cluster_pb2 as pb
from protos.podium.cluster.v1 import cluster_pb2_grpc as rpc
from services.cluster.domain import rules
from services.cluster.servicer import convert
from services.cluster.settings import ClusterSettings
from services.cluster.usecases.members import Members
from services.cluster.usecases.profiles import Profiles
from services.cluster.usecases.projects import Projects
from services.cluster.usecases.server import Server
from services.cluster.usecases.trust import Trust


class ServerServicer(rpc.ServerServiceServicer):
    def __init__(self, server: Server, members: Members, settings: ClusterSettings) -> None:
        self._server = server
        self._members = members
        self._settings = settings

    async def GetServer(self, request: pb.GetServerRequest, context: Any) -> pb.GetServerResponse:
        entry = self._server.config()
        return pb.GetServerResponse(
            config=rules.shown_config(entry.record.config),
            member=self._settings.member,
            certificate=self._settings.certificate,
            certificate_fingerprint=self._settings.fingerprint,
            revision=entry.revision,
        )

    async def UpdateServer(self, request: pb.UpdateServerRequest, context: Any) -> pb.UpdateServerResponse:
        new = await self._server.update(
            dict(request.config),
            unchanged=list(request.unchanged),
            merge=request.merge,
            expected_revision=request.expected_revision,
        )
        return pb.UpdateServerResponse(config=rules.shown_config(new.record.config), revision=new.revision)

    async def ListMembers(self, request: pb.ListMembersRequest, context: Any) -> pb.ListMembersResponse:
        return pb.ListMembersResponse(members=[convert.member(seen) for seen in self._members.all()])


class ProfileServicer(rpc.ProfileServiceServicer):
    def __init__(self, profiles: Profiles) -> None:
        self._profiles = profiles

    def _shown(self, entry: Any) -> pb.Profile:
        return convert.profile(entry, self._profiles.users(entry.record))

    async def CreateProfile(self, request: pb.CreateProfileRequest, context: Any) -> pb.CreateProfileResponse:
        entry = await self._profiles.create(convert.profile_from(request.profile))
        return pb.CreateProfileResponse(profile=self._shown(entry))

    async def GetProfile(self, request: pb.GetProfileRequest, context: Any) -> pb.GetProfileResponse:
        return pb.GetProfileResponse(profile=self._shown(self._profiles.get(request.project, request.name)))

    async def ListProfiles(self, request: pb.ListProfilesRequest, context: Any) -> pb.ListProfilesResponse:
        return pb.ListProfilesResponse(profiles=[self._shown(e) for e in self._profiles.all(request.project)])

    async def UpdateProfile(self, request: pb.UpdateProfileRequest, context: Any) -> pb.UpdateProfileResponse:
        entry = await self._profiles.update(
            convert.profile_from(request.profile),
            merge=request.merge,
            expected_revision=request.expected_revision,
        )
        return pb.UpdateProfileResponse(profile=self._shown(entry))

    async def RenameProfile(self, request: pb.RenameProfileRequest, context: Any) -> pb.RenameProfileResponse:
        entry = await self._profiles.rename(request.project, request.name, request.new_name)
        return pb.RenameProfileResponse(profile=self._shown(entry))

    async def DeleteProfile(self, request: pb.DeleteProfileRequest, context: Any) -> pb.DeleteProfileResponse:
        await self._profiles.delete(request.project, request.name)
        return pb.DeleteProfileResponse()


class ProjectServicer(rpc.ProjectServiceServicer):
    def __init__(self, projects: Projects, runner: Runner) -> None:
        self._projects = projects
        self._runner = runner

    def _shown(self, entry: Any) -> pb.Project:
        return convert.project(entry, self._projects.users(entry.record.name))

    async def CreateProject(self, request: pb.CreateProjectRequest, context: Any) -> pb.CreateProjectResponse:
        p = request.project
        entry = await self._projects.create(Project(p.name, p.description, dict(p.config)))
        return pb.CreateProjectResponse(project=self._shown(entry))

    async def GetProject(self, request: pb.GetProjectRequest, context: Any) -> pb.GetProjectResponse:
        return pb.GetProjectResponse(project=self._shown(self._projects.get(request.name)))

    async def ListProjects(self, request: pb.ListProjectsRequest, context: Any) -> pb.ListProjectsResponse:
        return pb.ListProjectsResponse(projects=[self._shown(e) for e in self._projects.all()])

    async def UpdateProject(self, request: pb.UpdateProjectRequest, context: Any) -> pb.UpdateProjectResponse:
        p = request.project
        entry = await self._projects.update(
            Project(p.name, p.description, dict(p.config)),
            merge=request.merge,
            expected_revision=request.expected_revision,
        )
        return pb.UpdateProjectResponse(project=self._shown(entry))

    async def RenameProject(self, request: pb.RenameProjectRequest, context: Any) -> pb.RenameProjectResponse:
        operation = await self._projects.accept_rename(request.name, request.new_name)
        return pb.RenameProjectResponse(operation=answer(self._runner, operation))

    async def GetProjectState(
        self, request: pb.GetProjectStateRequest, context: Any
    ) -> pb.GetProjectStateResponse:
        found = self._projects.usage(request.project)
        shown = {name: pb.ProjectResource(limit=limit, usage=used) for name, (limit, used) in found.items()}
        return pb.GetProjectStateResponse(resources=shown)

    async def DeleteProject(self, request: pb.DeleteProjectRequest, context: Any) -> pb.DeleteProjectResponse:
        await self._projects.delete(request.name)
        return pb.DeleteProjectResponse()


class TrustServicer(rpc.TrustServiceServicer):
    def __init__(self, trust: Trust, runner: Runner) -> None:
        self._trust = trust
        self._runner = runner

    async def AddCertificate(
        self, request: pb.AddCertificateRequest, context: Any
    ) -> pb.AddCertificateResponse:
        wanted = Certificate(
            name=request.name,
            type=request.type,
            restricted=request.restricted,
            projects=tuple(request.projects),
        )
        entry = await self._trust.add(request.certificate, wanted)
        return pb.AddCertificateResponse(certificate=convert.certificate(entry))

    async def RedeemTrust(self, request: pb.RedeemTrustRequest, context: Any) -> pb.RedeemTrustResponse:
        entry = await self._trust.redeem(request.certificate_der, request.secret, request.name)
        return pb.RedeemTrustResponse(certificate=convert.certificate(entry))

    async def CreateTrustToken(
        self, request: pb.CreateTrustTokenRequest, context: Any
    ) -> pb.CreateTrustTokenResponse:
        operation = await self._trust.create_token(
            request.name, request.restricted, list(request.projects), list(request.addresses)
        )
        return pb.CreateTrustTokenResponse(operation=answer(self._runner, operation))

    async def GetCertificate(
        self, request: pb.GetCertificateRequest, context: Any
    ) -> pb.GetCertificateResponse:
        return pb.GetCertificateResponse(
            certificate=convert.certificate(self._trust.get(request.fingerprint))
        )

    async def ListCertificates(
        self, request: pb.ListCertificatesRequest, context: Any
    ) -> pb.ListCertificatesResponse:
        return pb.ListCertificatesResponse(certificates=[convert.certificate(e) for e in self._trust.all()])

    async def UpdateCertificate(
        self, request: pb.UpdateCertificateRequest, context: Any
    ) -> pb.UpdateCertificateResponse:
        c = request.certificate
        wanted = Certificate(c.fingerprint, c.name, c.type, c.restricted, tuple(c.projects), c.certificate)
        return pb.UpdateCertificateResponse(certificate=convert.certificate(await self._trust.update(wanted)))

    async def DeleteCertificate(
        self, request: pb.DeleteCertificateRequest, context: Any
    ) -> pb.DeleteCertificateResponse:
        await self._trust.delete(request.fingerprint)
        return pb.DeleteCertificateResponse()
