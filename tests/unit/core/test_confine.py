"""What a caller that is confined to projects may ask of a service, whoever let it through."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import Forbidden, NotFound
from core.rpc.confine import check
from core.rpc.identity import Identity
from protos.podium.cluster.v1 import cluster_pb2 as cluster
from protos.podium.common.v1 import common_pb2 as common
from protos.podium.image.v1 import image_pb2 as image
from protos.podium.image.v1 import share_pb2 as share
from protos.podium.network.v1 import acl_pb2 as acl
from protos.podium.network.v1 import listener_pb2 as listener
from protos.podium.network.v1 import network_pb2 as network
from protos.podium.network.v1 import zone_pb2 as zone
from protos.podium.runtime.v1 import copy_pb2 as copy
from protos.podium.runtime.v1 import files_pb2 as files
from protos.podium.runtime.v1 import instance_pb2 as instance
from protos.podium.runtime.v1 import snapshot_pb2 as snapshot
from protos.podium.runtime.v1 import storage_pb2 as storage

CONFINED = Identity("aa", "tls", "", ("web", "shop"))
SHARE = "podium.image.v1.ShareService"
IMAGE, PROFILE = "podium.image.v1.ImageService", "podium.cluster.v1.ProfileService"
NETWORK, STORAGE = "podium.network.v1.NetworkService", "podium.runtime.v1.StorageService"
ACL, ZONE = "podium.network.v1.AclService", "podium.network.v1.ZoneService"
LISTENER = "podium.network.v1.ListenerService"
INSTANCE, FILE = "podium.runtime.v1.InstanceService", "podium.runtime.v1.FileService"
COPY, SNAPSHOT = "podium.runtime.v1.CopyService", "podium.runtime.v1.SnapshotService"
SERVER, PROJECT = "podium.cluster.v1.ServerService", "podium.cluster.v1.ProjectService"
TRUST, OPERATION = "podium.cluster.v1.TrustService", "podium.common.v1.OperationService"


def home_of(project: str, feature: str) -> str:
    """Project shop shares its images and networks with default; everything else is its own; web is gone."""
    if project == "web":
        raise NotFound("NO_PROJECT", "Project not found")
    return "default" if feature in ("images", "networks") else project


ALLOWED = [
    (INSTANCE, "CreateInstance", instance.CreateInstanceRequest(project="web")),
    (INSTANCE, "ListInstances", instance.ListInstancesRequest(project="shop")),
    (FILE, "StatFile", files.StatFileRequest(file=files.FileRef(project="web"))),
    (FILE, "WriteFile", files.WriteFileRequest(header=files.WriteHeader(file=files.FileRef(project="web")))),
    (IMAGE, "UploadImage", image.UploadImageRequest(header=image.UploadHeader(project="shop"))),
    (IMAGE, "GetImage", image.GetImageRequest(project="default")),
    (IMAGE, "PrepareImage", image.PrepareImageRequest(project="default")),
    (SHARE, "ExportFile", share.ExportFileRequest(project="default")),
    (SHARE, "PushImage", share.PushImageRequest(project="default", asked_in="shop")),
    (SHARE, "CreateImageSecret", share.CreateImageSecretRequest(project="default", asked_in="shop")),
    (PROFILE, "UpdateProfile", cluster.UpdateProfileRequest(profile=cluster.Profile(project="web"))),
    (NETWORK, "GetNetwork", network.GetNetworkRequest(project="default", name="br0")),
    (ACL, "UpdateAcl", acl.UpdateAclRequest(acl=acl.Acl(project="web", name="a"))),
    (ACL, "GetAcl", acl.GetAclRequest(project="default", name="a")),
    (ZONE, "CreateZone", zone.CreateZoneRequest(zone=zone.Zone(project="web", name="z"))),
    (LISTENER, "ListAddressForwards", listener.ListAddressForwardsRequest(network="br0")),
    (STORAGE, "ListPools", storage.ListPoolsRequest()),
    (STORAGE, "ListVolumes", storage.ListVolumesRequest(pool="p", project="web")),
    (PROJECT, "GetProject", cluster.GetProjectRequest(name="web")),
    (OPERATION, "GetOperation", common.GetOperationRequest(id="x")),
    (COPY, "CopyInstance", copy.CopyInstanceRequest(project="web", source=copy.CopySource(project="shop"))),
    (COPY, "MoveInstance", copy.MoveInstanceRequest(project="web", to=copy.MoveTarget(project="shop"))),
    (SNAPSHOT, "ListSnapshots", snapshot.ListSnapshotsRequest(project="web")),
]
REFUSED = [
    (ACL, "UpdateAcl", acl.UpdateAclRequest(acl=acl.Acl(project="default", name="a"))),
    (ACL, "DeleteAcl", acl.DeleteAclRequest(project="default", name="a")),
    (ZONE, "DeleteZoneRecord", zone.DeleteZoneRecordRequest(project="default", zone="z", name="a")),
    (LISTENER, "DeleteLoadBalancer", listener.DeleteLoadBalancerRequest(network="br0")),
    (SHARE, "PushImage", share.PushImageRequest(project="default", asked_in="other")),
    (SHARE, "AwaitImage", share.AwaitImageRequest(project="default", asked_in="shop")),
    (SHARE, "TakeAwaited", share.TakeAwaitedRequest(project="default")),
    (
        IMAGE,
        "UploadImage",
        image.UploadImageRequest(header=image.UploadHeader(project="shop", asked_in="other")),
    ),
    (
        COPY,
        "CopyInstance",
        copy.CopyInstanceRequest(project="web", source=copy.CopySource(project="default")),
    ),
    (COPY, "CopyInstance", copy.CopyInstanceRequest(project="other", source=copy.CopySource(project="web"))),
    (COPY, "MoveInstance", copy.MoveInstanceRequest(project="web", to=copy.MoveTarget(project="default"))),
    (SNAPSHOT, "ListSnapshots", snapshot.ListSnapshotsRequest(project="web", all_projects=True)),
    (SNAPSHOT, "RestoreSnapshot", snapshot.RestoreSnapshotRequest(project="default")),
    (INSTANCE, "CreateInstance", instance.CreateInstanceRequest(project="default")),
    (INSTANCE, "CreateInstance", instance.CreateInstanceRequest()),
    (INSTANCE, "ListInstances", instance.ListInstancesRequest(project="web", all_projects=True)),
    (INSTANCE, "GetInstanceMetrics", instance.GetInstanceMetricsRequest()),
    (FILE, "StatFile", files.StatFileRequest()),
    (FILE, "ReadFile", files.ReadFileRequest(file=files.FileRef(project="default"))),
    (FILE, "WriteFile", files.WriteFileRequest(chunk=b"x")),
    (IMAGE, "GetImage", image.GetImageRequest(project="other")),
    (IMAGE, "DeleteImage", image.DeleteImageRequest(project="default")),
    (IMAGE, "CreateAlias", image.CreateAliasRequest(alias=image.Alias(project="default"))),
    (PROFILE, "GetProfile", cluster.GetProfileRequest(project="default")),
    (PROFILE, "UpdateProfile", cluster.UpdateProfileRequest(profile=cluster.Profile(project="default"))),
    (NETWORK, "CreateNetwork", network.CreateNetworkRequest(project="web", name="br1")),
    (NETWORK, "UpdateNetwork", network.UpdateNetworkRequest(project="default", name="br0")),
    (STORAGE, "CreatePool", storage.CreatePoolRequest(name="p")),
    (STORAGE, "ListVolumes", storage.ListVolumesRequest(pool="p", project="web", all_projects=True)),
    (SERVER, "UpdateServer", cluster.UpdateServerRequest()),
    (PROJECT, "GetProject", cluster.GetProjectRequest(name="default")),
    (PROJECT, "UpdateProject", cluster.UpdateProjectRequest(project=cluster.Project(name="web"))),
    (PROJECT, "DeleteProject", cluster.DeleteProjectRequest(name="web")),
    (TRUST, "CreateTrustToken", cluster.CreateTrustTokenRequest(name="x", projects=["web"])),
]


@pytest.mark.parametrize(("service", "method", "request_"), ALLOWED)
def test_a_confined_caller_reaches_what_is_its_own(service: str, method: str, request_: Any) -> None:
    check(f"/{service}/{method}", request_, CONFINED, home_of)


@pytest.mark.parametrize(("service", "method", "request_"), REFUSED)
def test_a_confined_caller_reaches_nothing_else(service: str, method: str, request_: Any) -> None:
    """Also not what a gateway with a fault would ask for on its behalf."""
    with pytest.raises(Forbidden):
        check(f"/{service}/{method}", request_, CONFINED, home_of)


@pytest.mark.parametrize(("service", "method", "request_"), [*ALLOWED, *REFUSED])
def test_an_administrator_reaches_everything(service: str, method: str, request_: Any) -> None:
    check(f"/{service}/{method}", request_, Identity("root", "unix", "@"), home_of)
