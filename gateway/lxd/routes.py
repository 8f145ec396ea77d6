"""The one table of routes: method, path, who may use it, handler.

access: public (anybody), trusted (any trusted caller), project (trusted, confined to its projects),
admin, metrics. Paths are matched segment by segment; a segment is decoded after it was matched.
"""

from __future__ import annotations

from gateway.backend import Handler
from gateway.lxd.handlers import (
    certificates,
    events,
    exec,
    files,
    images,
    instances,
    networks,
    operations,
    profiles,
    projects,
    server,
    storage,
    warnings,
)

_INSTANCE_ROUTES: tuple[tuple[str, str, str, Handler], ...] = (
    ("GET", "", "project", instances.list_instances),
    ("POST", "", "project", instances.create_instance),
    ("PUT", "", "project", instances.put_all_states),
    ("GET", "/{name}", "project", instances.get_instance),
    ("PUT", "/{name}", "project", instances.put_instance),
    ("PATCH", "/{name}", "project", instances.patch_instance),
    ("POST", "/{name}", "project", instances.post_instance),
    ("DELETE", "/{name}", "project", instances.delete_instance),
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
    ("GET", "/{name}/snapshots", "project", instances.empty_list),
    ("POST", "/{name}/snapshots", "project", instances.not_yet),
    ("GET", "/{name}/backups", "project", instances.empty_list),
    ("POST", "/{name}/backups", "project", instances.not_yet),
)

_ROUTES: tuple[tuple[str, str, str, Handler], ...] = (
    ("GET", "/", "public", server.versions),
    ("GET", "/1.0", "public", server.get_server),
    ("PUT", "/1.0", "admin", server.put_server),
    ("PATCH", "/1.0", "admin", server.patch_server),
    ("GET", "/1.0/resources", "trusted", server.resources),
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
    ("POST", "/1.0/images", "project", images.post_image),
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
    ("GET", "/1.0/images/{name}/export", "public", images.export_image),
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
    ("GET", "/1.0/storage-pools", "trusted", storage.list_pools),
    ("POST", "/1.0/storage-pools", "admin", storage.post_pool),
    ("GET", "/1.0/storage-pools/{name}", "trusted", storage.get_pool),
    ("PUT", "/1.0/storage-pools/{name}", "admin", storage.put_pool),
    ("PATCH", "/1.0/storage-pools/{name}", "admin", storage.put_pool),
    ("DELETE", "/1.0/storage-pools/{name}", "admin", storage.delete_pool),
    ("GET", "/1.0/storage-pools/{name}/resources", "trusted", storage.pool_resources),
    ("GET", "/1.0/storage-pools/{name}/volumes", "project", storage.list_volumes),
    ("GET", "/1.0/storage-pools/{name}/volumes/{type}", "project", storage.list_volumes),
    ("GET", "/1.0/cluster", "trusted", server.get_cluster),
    ("GET", "/1.0/cluster/members", "trusted", server.not_clustered),
    ("GET", "/1.0/cluster/groups", "trusted", server.not_clustered),
    ("GET", "/1.0/warnings", "admin", warnings.list_warnings),
    ("GET", "/1.0/warnings/{name}", "admin", warnings.get_warning),
    ("PUT", "/1.0/warnings/{name}", "admin", warnings.put_warning),
    ("PATCH", "/1.0/warnings/{name}", "admin", warnings.put_warning),
    ("DELETE", "/1.0/warnings/{name}", "admin", warnings.delete_warning),
)


def table() -> list[tuple[str, str, str, Handler]]:
    """Return every route, the instance routes under each of their prefixes."""
    prefixes = ("/1.0/instances", "/1.0/containers", "/1.0/virtual-machines")
    expanded = [
        (method, prefix + path, access, handler)
        for prefix in prefixes
        for method, path, access, handler in _INSTANCE_ROUTES
    ]
    return [*_ROUTES, *expanded]
