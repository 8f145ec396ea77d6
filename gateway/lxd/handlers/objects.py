"""Profiles, projects, networks, storage pools and certificates."""

from __future__ import annotations

import base64
from typing import Any

from aiohttp import web

from core.errors import Forbidden, Invalid, Unsupported
from gateway.lxd import envelope, etag
from gateway.lxd import request as req
from gateway.lxd.handlers.server import addresses
from gateway.lxd.views import others as views
from protos.podium.cluster.v1 import cluster_pb2 as cl
from protos.podium.network.v1 import network_pb2 as nw
from protos.podium.runtime.v1 import storage_pb2 as st


def _listing(request: web.Request, path: str, items: list[Any], show: Any) -> web.Response:
    if req.recursion(request):
        return envelope.sync([show(item) for item in items])
    project = req.project(request)
    suffix = "" if project == "default" else f"?project={project}"
    return envelope.sync([f"{path}/{item.name}{suffix}" for item in items])


# --- profiles ------------------------------------------------------------------------------------


def _profile_project(request: web.Request) -> str:
    return req.backend(request).effective_project(req.project(request), "profiles")


async def list_profiles(request: web.Request) -> web.Response:
    reply = await req.backend(request).profiles.ListProfiles(
        cl.ListProfilesRequest(project=_profile_project(request))
    )
    return _listing(request, "/1.0/profiles", list(reply.profiles), views.profile_json)


def _profile_from(request: web.Request, data: dict[str, Any], name: str) -> cl.Profile:
    message = cl.Profile(
        project=_profile_project(request),
        name=name,
        description=req.text(data, "description"),
        config=req.text_map(data, "config"),
    )
    req.put_devices(message.devices, req.device_map(data))
    return message


async def post_profile(request: web.Request) -> web.Response:
    data = await req.body(request)
    message = _profile_from(request, data, req.text(data, "name"))
    await req.backend(request).profiles.CreateProfile(cl.CreateProfileRequest(profile=message))
    return envelope.created(f"/1.0/profiles/{message.name}")


async def _profile(request: web.Request) -> Any:
    reply = await req.backend(request).profiles.GetProfile(
        cl.GetProfileRequest(project=_profile_project(request), name=req.name(request))
    )
    return reply.profile


def _profile_tag(profile: Any) -> str:
    shown = views.profile_json(profile)
    return etag.of(shown["config"], shown["description"], shown["devices"])


async def get_profile(request: web.Request) -> web.Response:
    profile = await _profile(request)
    return envelope.sync(views.profile_json(profile), etag=_profile_tag(profile))


async def put_profile(request: web.Request) -> web.Response:
    data, profile = await req.body(request), await _profile(request)
    etag.check(request, _profile_tag(profile))
    await req.backend(request).profiles.UpdateProfile(
        cl.UpdateProfileRequest(
            profile=_profile_from(request, data, profile.name),
            merge=request.method == "PATCH",
            expected_revision=profile.revision,
        )
    )
    return envelope.empty()


async def rename_profile(request: web.Request) -> web.Response:
    new_name = req.text(await req.body(request), "name")
    await req.backend(request).profiles.RenameProfile(
        cl.RenameProfileRequest(project=_profile_project(request), name=req.name(request), new_name=new_name)
    )
    return envelope.created(f"/1.0/profiles/{new_name}")


async def delete_profile(request: web.Request) -> web.Response:
    await req.backend(request).profiles.DeleteProfile(
        cl.DeleteProfileRequest(project=_profile_project(request), name=req.name(request))
    )
    return envelope.empty()


# --- projects ------------------------------------------------------------------------------------


async def list_projects(request: web.Request) -> web.Response:
    reply = await req.backend(request).projects.ListProjects(cl.ListProjectsRequest())
    own = request["caller"].projects
    found = [p for p in reply.projects if own is None or p.name in own]
    if req.recursion(request):
        return envelope.sync([views.project_json(p) for p in found])
    return envelope.sync([f"/1.0/projects/{p.name}" for p in found])


async def post_project(request: web.Request) -> web.Response:
    data = await req.body(request)
    message = cl.Project(
        name=req.text(data, "name"),
        description=req.text(data, "description"),
        config=req.text_map(data, "config"),
    )
    await req.backend(request).projects.CreateProject(cl.CreateProjectRequest(project=message))
    return envelope.created(f"/1.0/projects/{message.name}")


async def _project(request: web.Request) -> Any:
    own = request["caller"].projects
    if own is not None and req.name(request) not in own:
        raise Forbidden("NOT_AUTHORIZED", "not authorized")
    reply = await req.backend(request).projects.GetProject(cl.GetProjectRequest(name=req.name(request)))
    return reply.project


def _project_tag(project: Any) -> str:
    return etag.of(dict(project.config), project.description)


async def get_project(request: web.Request) -> web.Response:
    project = await _project(request)
    return envelope.sync(views.project_json(project), etag=_project_tag(project))


async def put_project(request: web.Request) -> web.Response:
    data, project = await req.body(request), await _project(request)
    etag.check(request, _project_tag(project))
    changed = cl.Project(
        name=project.name,
        description=req.text(data, "description"),
        config=req.text_map(data, "config"),
    )
    await req.backend(request).projects.UpdateProject(
        cl.UpdateProjectRequest(
            project=changed, merge=request.method == "PATCH", expected_revision=project.revision
        )
    )
    return envelope.empty()


async def rename_project(request: web.Request) -> web.Response:
    backend, data = req.backend(request), await req.body(request)
    reply = await backend.projects.RenameProject(
        cl.RenameProjectRequest(name=req.name(request), new_name=req.text(data, "name"))
    )
    return envelope.accepted(backend.accepted(reply.operation))


async def delete_project(request: web.Request) -> web.Response:
    await req.backend(request).projects.DeleteProject(cl.DeleteProjectRequest(name=req.name(request)))
    return envelope.empty()


async def project_state(request: web.Request) -> web.Response:
    project = await _project(request)
    count = sum(1 for reference in project.used_by if reference.startswith("instances/"))
    names = ("containers", "cpu", "disk", "instances", "memory", "networks", "processes", "virtual-machines")
    usage = {"containers": count, "instances": count}
    return envelope.sync({"resources": {name: {"Limit": -1, "Usage": usage.get(name, 0)} for name in names}})


# --- networks ------------------------------------------------------------------------------------


async def list_networks(request: web.Request) -> web.Response:
    reply = await req.backend(request).networks.ListNetworks(nw.ListNetworksRequest(project="default"))
    return _listing(request, "/1.0/networks", list(reply.networks), views.network_json)


async def post_network(request: web.Request) -> web.Response:
    data = await req.body(request)
    message = nw.CreateNetworkRequest(
        project="default",
        name=req.text(data, "name"),
        type=req.text(data, "type"),
        config=req.text_map(data, "config"),
        description=req.text(data, "description"),
    )
    await req.backend(request).networks.CreateNetwork(message)
    return envelope.created(f"/1.0/networks/{message.name}")


async def _network(request: web.Request) -> Any:
    reply = await req.backend(request).networks.GetNetwork(
        nw.GetNetworkRequest(project="default", name=req.name(request))
    )
    return reply.network


def _network_tag(n: Any) -> str:
    return etag.of(n.name, n.managed, n.type, n.description, dict(n.config))


async def get_network(request: web.Request) -> web.Response:
    network = await _network(request)
    return envelope.sync(views.network_json(network), etag=_network_tag(network))


async def put_network(request: web.Request) -> web.Response:
    data, network = await req.body(request), await _network(request)
    etag.check(request, _network_tag(network))
    await req.backend(request).networks.UpdateNetwork(
        nw.UpdateNetworkRequest(
            project="default",
            name=network.name,
            config=req.text_map(data, "config"),
            description=req.text(data, "description"),
            merge=request.method == "PATCH",
            expected_revision=network.revision,
        )
    )
    return envelope.empty()


async def rename_network(request: web.Request) -> web.Response:
    new_name = req.text(await req.body(request), "name")
    await req.backend(request).networks.RenameNetwork(
        nw.RenameNetworkRequest(project="default", name=req.name(request), new_name=new_name)
    )
    return envelope.created(f"/1.0/networks/{new_name}")


async def delete_network(request: web.Request) -> web.Response:
    await req.backend(request).networks.DeleteNetwork(
        nw.DeleteNetworkRequest(project="default", name=req.name(request))
    )
    return envelope.empty()


async def network_state(request: web.Request) -> web.Response:
    reply = await req.backend(request).networks.GetNetworkState(
        nw.GetNetworkStateRequest(project="default", name=req.name(request))
    )
    return envelope.sync(views.network_state_json(reply.state))


async def network_leases(request: web.Request) -> web.Response:
    reply = await req.backend(request).networks.ListLeases(
        nw.ListLeasesRequest(project="default", name=req.name(request))
    )
    return envelope.sync([views.lease_json(lease) for lease in reply.leases])


# --- storage -------------------------------------------------------------------------------------


async def list_pools(request: web.Request) -> web.Response:
    reply = await req.backend(request).storage.ListPools(st.ListPoolsRequest())
    if req.recursion(request):
        return envelope.sync([views.pool_json(p) for p in reply.pools])
    return envelope.sync([f"/1.0/storage-pools/{p.name}" for p in reply.pools])


async def post_pool(request: web.Request) -> web.Response:
    data = await req.body(request)
    message = st.CreatePoolRequest(
        name=req.text(data, "name"),
        driver=req.text(data, "driver"),
        config=req.text_map(data, "config"),
        description=req.text(data, "description"),
    )
    await req.backend(request).storage.CreatePool(message)
    return envelope.created(f"/1.0/storage-pools/{message.name}")


async def _pool(request: web.Request) -> Any:
    reply = await req.backend(request).storage.GetPool(st.GetPoolRequest(name=req.name(request)))
    return reply.pool


async def get_pool(request: web.Request) -> web.Response:
    shown = views.pool_json(await _pool(request))
    if not request["caller"].is_admin:
        shown["config"] = None
    return envelope.sync(shown)


async def put_pool(request: web.Request) -> web.Response:
    data, pool = await req.body(request), await _pool(request)
    etag.check(request, etag.of(pool.name, pool.driver, dict(pool.config)))
    await req.backend(request).storage.UpdatePool(
        st.UpdatePoolRequest(
            name=pool.name,
            config=req.text_map(data, "config"),
            description=req.text(data, "description"),
            merge=request.method == "PATCH",
            expected_revision=pool.revision,
        )
    )
    return envelope.empty()


async def delete_pool(request: web.Request) -> web.Response:
    await req.backend(request).storage.DeletePool(st.DeletePoolRequest(name=req.name(request)))
    return envelope.empty()


async def pool_resources(request: web.Request) -> web.Response:
    r = await req.backend(request).storage.GetPoolResources(
        st.GetPoolResourcesRequest(name=req.name(request))
    )
    return envelope.sync(
        {
            "space": {"used": r.space_used_bytes, "total": r.space_total_bytes},
            "inodes": {"used": r.inodes_used, "total": r.inodes_total},
        }
    )


async def list_volumes(request: web.Request) -> web.Response:
    reply = await req.backend(request).storage.ListVolumes(
        st.ListVolumesRequest(
            pool=req.name(request),
            project=req.project(request),
            all_projects=request.query.get("all-projects") == "true",
        )
    )
    wanted = request.match_info.get("type", "")
    found = [v for v in reply.volumes if not wanted or v.type == wanted]
    if req.recursion(request):
        return envelope.sync([views.volume_json(v) for v in found])
    base = f"/1.0/storage-pools/{req.name(request)}/volumes"
    return envelope.sync([f"{base}/{v.type}/{v.name}" for v in found])


# --- certificates --------------------------------------------------------------------------------


async def list_certificates(request: web.Request) -> web.Response:
    caller = request["caller"]
    reply = await req.backend(request).trust.ListCertificates(cl.ListCertificatesRequest())
    found = [c for c in reply.certificates if caller.is_admin or c.fingerprint == caller.identity.username]
    if req.recursion(request):
        return envelope.sync([views.certificate_json(c) for c in found])
    return envelope.sync([f"/1.0/certificates/{c.fingerprint}" for c in found])


async def post_certificate(request: web.Request) -> web.Response:
    data, caller, backend = await req.body(request), request["caller"], req.backend(request)
    if caller.is_admin and req.flag(data, "token"):
        return await _token(request, data)
    text = req.text(data, "certificate")
    if caller.is_admin and (text or not caller.certificate_der):
        reply = await backend.trust.AddCertificate(
            cl.AddCertificateRequest(
                certificate=text,
                name=req.text(data, "name"),
                type=req.text(data, "type"),
                restricted=req.flag(data, "restricted"),
                projects=req.texts(data, "projects"),
            )
        )
    elif caller.trusted:
        raise Invalid("TRUSTED", "Client is already trusted")
    else:
        der = caller.certificate_der or certificate_bytes(text)
        reply = await backend.trust.RedeemTrust(
            cl.RedeemTrustRequest(
                certificate_der=der,
                secret=req.text(data, "password") or req.text(data, "trust_token"),
                name=req.text(data, "name"),
            )
        )
    return envelope.created(f"/1.0/certificates/{reply.certificate.fingerprint}")


def certificate_bytes(text: str) -> bytes:
    """Return the DER of a base64 text that anybody may have sent. Raises: Invalid."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise Invalid("BAD_CERTIFICATE", "certificate must be base64 of an X.509 certificate") from None


async def _token(request: web.Request, data: dict[str, Any]) -> web.Response:
    backend = req.backend(request)
    if (req.text(data, "type") or "client") != "client":
        raise Invalid("BAD_TYPE", "Tokens can only be issued for type client")
    listening = addresses(backend.settings.https_address)
    if not listening:
        raise Invalid("NOT_LISTENING", "Can't issue token when server isn't listening on network")
    reply = await backend.trust.CreateTrustToken(
        cl.CreateTrustTokenRequest(
            name=req.text(data, "name"),
            restricted=req.flag(data, "restricted"),
            projects=req.texts(data, "projects"),
            addresses=listening,
        )
    )
    return envelope.accepted(backend.accepted(reply.operation))


async def _certificate(request: web.Request) -> Any:
    reply = await req.backend(request).trust.GetCertificate(
        cl.GetCertificateRequest(fingerprint=req.name(request))
    )
    return reply.certificate


async def get_certificate(request: web.Request) -> web.Response:
    shown = views.certificate_json(await _certificate(request))
    return envelope.sync(shown, etag=etag.of(shown))


async def put_certificate(request: web.Request) -> web.Response:
    data, old = await req.body(request), await _certificate(request)
    etag.check(request, etag.of(views.certificate_json(old)))
    patching = request.method == "PATCH"
    if req.text(data, "certificate") not in ("", old.certificate):
        raise Unsupported("NO_RENEWAL", "Replacing a certificate is not supported; add the new one")
    changed = cl.Certificate(
        fingerprint=old.fingerprint,
        name=req.text(data, "name") or old.name,
        type=req.text(data, "type") or old.type,
        restricted=req.flag(data, "restricted") if "restricted" in data or not patching else old.restricted,
        projects=req.texts(data, "projects") if "projects" in data or not patching else old.projects,
    )
    await req.backend(request).trust.UpdateCertificate(
        cl.UpdateCertificateRequest(certificate=changed, expected_revision=old.revision)
    )
    return envelope.empty()


async def delete_certificate(request: web.Request) -> web.Response:
    await req.backend(request).trust.DeleteCertificate(
        cl.DeleteCertificateRequest(fingerprint=req.name(request))
    )
    return envelope.empty()
