"""The one table of routes: method, path, who may use it, handler.

access: public (anybody), trusted (any trusted caller), project (trusted, confined to its projects),
admin, metrics. Paths are matched segment by segment; a segment is decoded after it was matched.
"""

from __future__ import annotations

import functools

from aiohttp import web

from core.errors import Invalid, NotFound
from gateway.backend import Handler
from gateway.lxd.handlers import (
    abouts,
    addresssets,
    backups,
    certificates,
    copies,
    events,
    exec,
    exports,
    files,
    images,
    instances,
    internal,
    listeners,
    members,
    metadata,
    networkacls,
    networks,
    networkzones,
    operations,
    previous,
    profiles,
    projects,
    recover,
    server,
    sftp,
    simplestreams,
    snapshots,
    storage,
    volumebackups,
    volumes,
    volumesnapshots,
    warnings,
)
from gateway.lxd.views import simplestreams as view

_INSTANCE_ROUTES: tuple[tuple[str, str, str, Handler], ...] = (
    ("GET", "", "project", instances.list_instances),
    ("POST", "", "project", instances.create_instance),
    ("PUT", "", "project", instances.put_all_states),
    ("GET", "/{name}", "project", instances.get_instance),
    ("PUT", "/{name}", "project", instances.put_instance),
    ("PATCH", "/{name}", "project", instances.patch_instance),
    ("POST", "/{name}", "project", instances.post_instance),
    ("DELETE", "/{name}", "project", instances.delete_instance),
    ("POST", "/{name}/rebuild", "project", copies.rebuild_instance),
    ("GET", "/{name}/state", "project", instances.get_state),
    ("PUT", "/{name}/state", "project", instances.put_state),
    ("POST", "/{name}/exec", "project", exec.post_exec),
    ("POST", "/{name}/console", "project", exec.post_console),
    ("GET", "/{name}/console", "project", exec.get_console),
    ("DELETE", "/{name}/console", "project", exec.delete_console),
    ("GET", "/{name}/files", "project", files.get_file),
    ("HEAD", "/{name}/files", "project", files.head_file),
    ("POST", "/{name}/files", "project", files.post_file),
    ("DELETE", "/{name}/files", "project", files.delete_file),
    ("GET", "/{name}/logs", "project", exec.list_logs),
    ("GET", "/{name}/logs/{file}", "project", exec.get_log),
    ("DELETE", "/{name}/logs/{file}", "project", exec.delete_log),
    ("GET", "/{name}/snapshots", "project", snapshots.list_snapshots),
    ("POST", "/{name}/snapshots", "project", snapshots.create_snapshot),
    ("GET", "/{name}/snapshots/{snapshot}", "project", snapshots.get_snapshot),
    ("PUT", "/{name}/snapshots/{snapshot}", "project", snapshots.put_snapshot),
    ("PATCH", "/{name}/snapshots/{snapshot}", "project", snapshots.put_snapshot),
    ("POST", "/{name}/snapshots/{snapshot}", "project", snapshots.post_snapshot),
    ("DELETE", "/{name}/snapshots/{snapshot}", "project", snapshots.delete_snapshot),
    ("GET", "/{name}/backups", "project", backups.list_backups),
    ("POST", "/{name}/backups", "project", backups.post_backup),
    ("GET", "/{name}/backups/{backup}", "project", backups.get_backup),
    ("POST", "/{name}/backups/{backup}", "project", backups.rename_backup),
    ("DELETE", "/{name}/backups/{backup}", "project", backups.delete_backup),
    ("GET", "/{name}/backups/{backup}/export", "project", backups.export_backup),
    ("GET", "/{name}/previous", "project", previous.get_previous),
    ("GET", "/{name}/sftp", "project", sftp.get_sftp),
    ("GET", "/{name}/metadata", "project", abouts.get_metadata),
    ("PUT", "/{name}/metadata", "project", abouts.put_metadata),
    ("PATCH", "/{name}/metadata", "project", abouts.patch_metadata),
    ("GET", "/{name}/metadata/templates", "project", abouts.get_templates),
    ("POST", "/{name}/metadata/templates", "project", abouts.post_template),
    ("PUT", "/{name}/metadata/templates", "project", abouts.post_template),
    ("DELETE", "/{name}/metadata/templates", "project", abouts.delete_template),
)

_VOLUMES = "/1.0/storage-pools/{name}/volumes"
_VOLUME = f"{_VOLUMES}/{{type}}/{{volume}}"
_VOLUME_BACKUP = f"{_VOLUME}/backups/{{backup}}"
_VOLUME_SNAPSHOT = f"{_VOLUME}/snapshots/{{snapshot}}"
_BUCKETS, _EVERY = "/1.0/storage-pools/{name}/buckets", ("GET", "POST", "PUT", "PATCH", "DELETE")
_BUCKET = ("", "/{bucket}", "/{bucket}/keys", "/{bucket}/keys/{key}")
_ZONE, _SETS = "/1.0/network-zones/{name}", "/1.0/network-address-sets"
_FORWARDS, _BALANCERS = "/1.0/networks/{name}/forwards", "/1.0/networks/{name}/load-balancers"
_READ = ("GET", "HEAD")
_MEMBERS, _GROUPS = "/1.0/cluster/members", "/1.0/cluster/groups"
_ROUTES: tuple[tuple[str, str, str, Handler], ...] = (
    ("GET", "/", "public", server.versions),
    *((method, f"/{view.INDEX}", "public", simplestreams.get_index) for method in _READ),
    *((method, f"/{view.PRODUCTS}", "public", simplestreams.get_products) for method in _READ),
    *((method, "/images/{name}/{file}", "public", simplestreams.get_file) for method in _READ),
    ("GET", "/internal/ready", "admin", internal.ready),
    ("PUT", "/internal/shutdown", "admin", internal.shutdown),
    ("GET", "/1.0", "public", server.get_server),
    ("PUT", "/1.0", "admin", server.put_server),
    ("PATCH", "/1.0", "admin", server.patch_server),
    ("GET", "/1.0/resources", "trusted", server.resources),
    ("GET", "/1.0/metadata/configuration", "trusted", metadata.configuration),
    ("GET", "/1.0/metrics", "metrics", server.metrics),
    ("GET", "/1.0/events", "project", events.events),
    ("GET", "/1.0/operations", "trusted", operations.list_operations),
    ("GET", "/1.0/operations/{name}", "trusted", operations.get_operation),
    ("DELETE", "/1.0/operations/{name}", "trusted", operations.delete_operation),
    ("GET", "/1.0/operations/{name}/wait", "public", operations.wait_operation),
    ("GET", "/1.0/operations/{name}/websocket", "public", exec.channel),
    ("GET", "/1.0/certificates", "trusted", certificates.list_certificates),
    ("POST", "/1.0/certificates", "public", certificates.post_certificate),
    ("GET", "/1.0/certificates/{name}", "trusted", certificates.get_certificate),
    ("PUT", "/1.0/certificates/{name}", "admin", certificates.put_certificate),
    ("PATCH", "/1.0/certificates/{name}", "admin", certificates.put_certificate),
    ("DELETE", "/1.0/certificates/{name}", "admin", certificates.delete_certificate),
    ("GET", "/1.0/images", "public", images.list_images),
    ("POST", "/1.0/images", "public", images.post_image),
    ("GET", "/1.0/images/aliases", "project", images.list_aliases),
    ("POST", "/1.0/images/aliases", "project", images.post_alias),
    ("GET", "/1.0/images/aliases/{name:.+}", "public", images.get_alias),
    ("PUT", "/1.0/images/aliases/{name:.+}", "project", images.put_alias),
    ("PATCH", "/1.0/images/aliases/{name:.+}", "project", images.put_alias),
    ("POST", "/1.0/images/aliases/{name:.+}", "project", images.rename_alias),
    ("DELETE", "/1.0/images/aliases/{name:.+}", "project", images.delete_alias),
    ("GET", "/1.0/images/{name}", "public", images.get_image),
    ("PUT", "/1.0/images/{name}", "project", images.put_image),
    ("PATCH", "/1.0/images/{name}", "project", images.patch_image),
    ("DELETE", "/1.0/images/{name}", "project", images.delete_image),
    ("GET", "/1.0/images/{name}/export", "public", exports.export_image),
    ("HEAD", "/1.0/images/{name}/export", "public", exports.export_image),
    ("POST", "/1.0/images/{name}/export", "project", exports.push_image),
    ("POST", "/1.0/images/{name}/secret", "project", exports.post_secret),
    ("POST", "/1.0/images/{name}/refresh", "project", images.refresh_image),
    ("GET", "/1.0/profiles", "project", profiles.list_profiles),
    ("POST", "/1.0/profiles", "project", profiles.post_profile),
    ("GET", "/1.0/profiles/{name}", "project", profiles.get_profile),
    ("PUT", "/1.0/profiles/{name}", "project", profiles.put_profile),
    ("PATCH", "/1.0/profiles/{name}", "project", profiles.put_profile),
    ("POST", "/1.0/profiles/{name}", "project", profiles.rename_profile),
    ("DELETE", "/1.0/profiles/{name}", "project", profiles.delete_profile),
    ("GET", "/1.0/projects", "trusted", projects.list_projects),
    ("POST", "/1.0/projects", "admin", projects.post_project),
    ("GET", "/1.0/projects/{name}", "trusted", projects.get_project),
    ("PUT", "/1.0/projects/{name}", "admin", projects.put_project),
    ("PATCH", "/1.0/projects/{name}", "admin", projects.put_project),
    ("POST", "/1.0/projects/{name}", "admin", projects.rename_project),
    ("DELETE", "/1.0/projects/{name}", "admin", projects.delete_project),
    ("GET", "/1.0/projects/{name}/state", "trusted", projects.project_state),
    ("GET", "/1.0/networks", "project", networks.list_networks),
    ("POST", "/1.0/networks", "admin", networks.post_network),
    ("GET", "/1.0/networks/{name}", "project", networks.get_network),
    ("PUT", "/1.0/networks/{name}", "admin", networks.put_network),
    ("PATCH", "/1.0/networks/{name}", "admin", networks.put_network),
    ("POST", "/1.0/networks/{name}", "admin", networks.rename_network),
    ("DELETE", "/1.0/networks/{name}", "admin", networks.delete_network),
    ("GET", "/1.0/networks/{name}/state", "project", networks.network_state),
    ("GET", "/1.0/networks/{name}/leases", "project", networks.network_leases),
    ("GET", _FORWARDS, "project", listeners.list_forwards),
    ("POST", _FORWARDS, "admin", listeners.post_forward),
    ("GET", f"{_FORWARDS}/{{address}}", "project", listeners.get_forward),
    ("PUT", f"{_FORWARDS}/{{address}}", "admin", listeners.put_forward),
    ("PATCH", f"{_FORWARDS}/{{address}}", "admin", listeners.put_forward),
    ("DELETE", f"{_FORWARDS}/{{address}}", "admin", listeners.delete_forward),
    ("GET", _BALANCERS, "project", listeners.list_balancers),
    ("POST", _BALANCERS, "admin", listeners.post_balancer),
    ("GET", f"{_BALANCERS}/{{address}}", "project", listeners.get_balancer),
    ("PUT", f"{_BALANCERS}/{{address}}", "admin", listeners.put_balancer),
    ("PATCH", f"{_BALANCERS}/{{address}}", "admin", listeners.put_balancer),
    ("DELETE", f"{_BALANCERS}/{{address}}", "admin", listeners.delete_balancer),
    ("GET", f"{_BALANCERS}/{{address}}/state", "project", listeners.balancer_state),
    *(
        (method, f"/1.0/networks/{{name}}/peers{rest}", "project", networks.no_peers)
        for rest in ("", "/{peer}")
        for method in _EVERY
    ),
    ("GET", _SETS, "project", addresssets.list_sets),
    ("POST", _SETS, "project", addresssets.post_set),
    ("GET", f"{_SETS}/{{name}}", "project", addresssets.get_set),
    ("PUT", f"{_SETS}/{{name}}", "project", addresssets.put_set),
    ("PATCH", f"{_SETS}/{{name}}", "project", addresssets.put_set),
    ("POST", f"{_SETS}/{{name}}", "project", addresssets.rename_set),
    ("DELETE", f"{_SETS}/{{name}}", "project", addresssets.delete_set),
    ("GET", "/1.0/network-allocations", "project", networks.network_allocations),
    ("GET", "/1.0/network-acls", "project", networkacls.list_acls),
    ("POST", "/1.0/network-acls", "project", networkacls.post_acl),
    ("GET", "/1.0/network-acls/{name}", "project", networkacls.get_acl),
    ("PUT", "/1.0/network-acls/{name}", "project", networkacls.put_acl),
    ("PATCH", "/1.0/network-acls/{name}", "project", networkacls.put_acl),
    ("POST", "/1.0/network-acls/{name}", "project", networkacls.rename_acl),
    ("DELETE", "/1.0/network-acls/{name}", "project", networkacls.delete_acl),
    ("GET", "/1.0/network-acls/{name}/log", "project", networkacls.get_acl_log),
    ("GET", "/1.0/network-zones", "project", networkzones.list_zones),
    ("POST", "/1.0/network-zones", "project", networkzones.post_zone),
    ("GET", _ZONE, "project", networkzones.get_zone),
    ("PUT", _ZONE, "project", networkzones.put_zone),
    ("PATCH", _ZONE, "project", networkzones.put_zone),
    ("DELETE", _ZONE, "project", networkzones.delete_zone),
    ("GET", f"{_ZONE}/records", "project", networkzones.list_records),
    ("POST", f"{_ZONE}/records", "project", networkzones.post_record),
    ("GET", f"{_ZONE}/records/{{record}}", "project", networkzones.get_record),
    ("PUT", f"{_ZONE}/records/{{record}}", "project", networkzones.put_record),
    ("PATCH", f"{_ZONE}/records/{{record}}", "project", networkzones.put_record),
    ("DELETE", f"{_ZONE}/records/{{record}}", "project", networkzones.delete_record),
    ("GET", "/1.0/storage-pools", "trusted", storage.list_pools),
    ("POST", "/1.0/storage-pools", "admin", storage.post_pool),
    ("GET", "/1.0/storage-pools/{name}", "trusted", storage.get_pool),
    ("PUT", "/1.0/storage-pools/{name}", "admin", storage.put_pool),
    ("PATCH", "/1.0/storage-pools/{name}", "admin", storage.put_pool),
    ("DELETE", "/1.0/storage-pools/{name}", "admin", storage.delete_pool),
    ("GET", "/1.0/storage-pools/{name}/resources", "trusted", storage.pool_resources),
    ("GET", f"{_VOLUMES}", "project", volumes.list_volumes),
    ("POST", f"{_VOLUMES}", "project", volumes.post_volume),
    ("GET", f"{_VOLUMES}/{{type}}", "project", volumes.list_volumes),
    ("POST", f"{_VOLUMES}/{{type}}", "project", volumebackups.post_volume),
    ("GET", f"{_VOLUME}", "project", volumes.get_volume),
    ("PUT", f"{_VOLUME}", "project", volumes.put_volume),
    ("PATCH", f"{_VOLUME}", "project", volumes.put_volume),
    ("POST", f"{_VOLUME}", "project", volumes.move_volume),
    ("DELETE", f"{_VOLUME}", "project", volumes.delete_volume),
    ("GET", f"{_VOLUME}/state", "project", volumes.volume_state),
    ("GET", f"{_VOLUME}/backups", "project", volumebackups.list_backups),
    ("POST", f"{_VOLUME}/backups", "project", volumebackups.post_backup),
    ("GET", _VOLUME_BACKUP, "project", volumebackups.get_backup),
    ("POST", _VOLUME_BACKUP, "project", volumebackups.rename_backup),
    ("DELETE", _VOLUME_BACKUP, "project", volumebackups.delete_backup),
    ("GET", f"{_VOLUME_BACKUP}/export", "project", volumebackups.export_backup),
    ("GET", f"{_VOLUME}/snapshots", "project", volumesnapshots.list_snapshots),
    ("POST", f"{_VOLUME}/snapshots", "project", volumesnapshots.post_snapshot),
    ("GET", _VOLUME_SNAPSHOT, "project", volumesnapshots.get_snapshot),
    ("PUT", _VOLUME_SNAPSHOT, "project", volumesnapshots.put_snapshot),
    ("PATCH", _VOLUME_SNAPSHOT, "project", volumesnapshots.put_snapshot),
    ("POST", _VOLUME_SNAPSHOT, "project", volumesnapshots.rename_snapshot),
    ("DELETE", _VOLUME_SNAPSHOT, "project", volumesnapshots.delete_snapshot),
    *((method, f"{_BUCKETS}{rest}", "project", storage.no_buckets) for rest in _BUCKET for method in _EVERY),
    ("POST", "/internal/recover/validate", "admin", recover.validate),
    ("POST", "/internal/recover/import", "admin", recover.restore),
    ("GET", "/1.0/cluster", "trusted", members.get_cluster),
    ("PUT", "/1.0/cluster", "admin", members.put_cluster),
    ("GET", _MEMBERS, "trusted", members.list_members),
    ("POST", _MEMBERS, "admin", members.post_member),
    ("GET", f"{_MEMBERS}/{{name}}", "admin", members.get_member),
    *(
        (method, f"{_MEMBERS}/{{name}}", "admin", members.refuse_change)
        for method in _EVERY
        if method != "GET"
    ),
    ("GET", f"{_MEMBERS}/{{name}}/state", "admin", members.get_member_state),
    ("POST", f"{_MEMBERS}/{{name}}/state", "admin", members.refuse_change),
    ("PUT", "/1.0/cluster/certificate", "admin", members.refuse_certificate),
    ("GET", _GROUPS, "trusted", members.list_groups),
    ("POST", _GROUPS, "admin", members.refuse_groups),
    *((method, f"{_GROUPS}/{{name}}", "admin", members.refuse_groups) for method in _EVERY),
    ("POST", "/internal/cluster/accept", "public", members.accept),
    ("GET", "/1.0/warnings", "admin", warnings.list_warnings),
    ("GET", "/1.0/warnings/{name}", "admin", warnings.get_warning),
    ("PUT", "/1.0/warnings/{name}", "admin", warnings.put_warning),
    ("PATCH", "/1.0/warnings/{name}", "admin", warnings.put_warning),
    ("DELETE", "/1.0/warnings/{name}", "admin", warnings.delete_warning),
)


_MACHINES = "/1.0/virtual-machines"


def table() -> list[tuple[str, str, str, Handler]]:
    """Return every route, the instance routes under each of their prefixes."""
    prefixes = ("/1.0/instances", "/1.0/containers", _MACHINES)
    expanded = [
        (method, prefix + path, access, _of_one(handler) if path else handler)
        for prefix in prefixes
        for method, path, access, handler in _INSTANCE_ROUTES
    ]
    return [*_ROUTES, *expanded]


def _of_one(handler: Handler) -> Handler:
    """Say of a name that would be a snapshot's, which clients send as they are told it, that it is none."""

    @functools.wraps(handler)
    async def checked(request: web.Request) -> web.StreamResponse:
        if "/" in request.match_info["name"]:
            raise Invalid("BAD_NAME", "Invalid instance name", about=request.match_info["name"][:64])
        if request.path.startswith(_MACHINES):
            raise NotFound("NO_INSTANCE", "Instance not found", about=request.match_info["name"][:64])
        answer: web.StreamResponse = await handler(request)
        return answer

    return checked
