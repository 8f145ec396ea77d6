"""The names in api_extensions, by which clients decide what they may ask for.

All names of LXD 5.0.2 stand in its order, and those that Podium does not honour in LEFT_OUT with the reason;
what becomes true is taken from there. `make docs` writes docs/api-extensions.md from it.
"""

from __future__ import annotations

from collections.abc import Iterable

_LXD = """
storage_zfs_remove_snapshots container_host_shutdown_timeout container_stop_priority
container_syscall_filtering auth_pki container_last_used_at etag patch usb_devices https_allowed_credentials
image_compression_algorithm directory_manipulation container_cpu_time storage_zfs_use_refquota
storage_lvm_mount_options network profile_usedby container_push container_exec_recording certificate_update
container_exec_signal_handling gpu_devices container_image_properties migration_progress id_map
network_firewall_filtering network_routes storage file_delete file_append network_dhcp_expiry
storage_lvm_vg_rename storage_lvm_thinpool_rename network_vlan image_create_aliases container_stateless_copy
container_only_migration storage_zfs_clone_copy unix_device_rename storage_lvm_use_thinpool
storage_rsync_bwlimit network_vxlan_interface storage_btrfs_mount_options entity_description
image_force_refresh storage_lvm_lv_resizing id_map_base file_symlinks container_push_target
network_vlan_physical storage_images_delete container_edit_metadata container_snapshot_stateful_migration
storage_driver_ceph storage_ceph_user_name resource_limits storage_volatile_initial_source
storage_ceph_force_osd_reuse storage_block_filesystem_btrfs resources kernel_limits
storage_api_volume_rename macaroon_authentication network_sriov console restrict_devlxd migration_pre_copy
infiniband maas_network devlxd_events proxy network_dhcp_gateway file_get_symlink network_leases
unix_device_hotplug storage_api_local_volume_handling operation_description clustering event_lifecycle
storage_api_remote_volume_handling nvidia_runtime container_mount_propagation container_backup devlxd_images
container_local_cross_pool_handling proxy_unix proxy_udp clustering_join proxy_tcp_udp_multi_port_handling
network_state proxy_unix_dac_properties container_protection_delete unix_priv_drop pprof_http
proxy_haproxy_protocol network_hwaddr proxy_nat network_nat_order container_full candid_authentication
backup_compression candid_config nvidia_runtime_config storage_api_volume_snapshots storage_unmapped
projects candid_config_key network_vxlan_ttl container_incremental_copy usb_optional_vendorid
snapshot_scheduling snapshot_schedule_aliases container_copy_project clustering_server_address
clustering_image_replication container_protection_shift snapshot_expiry container_backup_override_pool
snapshot_expiry_creation network_leases_location resources_cpu_socket resources_gpu resources_numa
kernel_features id_map_current event_location storage_api_remote_volume_snapshots network_nat_address
container_nic_routes rbac cluster_internal_copy seccomp_notify lxc_features container_nic_ipvlan
network_vlan_sriov storage_cephfs container_nic_ipfilter resources_v2 container_exec_user_group_cwd
container_syscall_intercept container_disk_shift storage_shifted resources_infiniband daemon_storage
instances image_types resources_disk_sata clustering_roles images_expiry resources_network_firmware
backup_compression_algorithm ceph_data_pool_name container_syscall_intercept_mount compression_squashfs
container_raw_mount container_nic_routed container_syscall_intercept_mount_fuse container_disk_ceph
virtual-machines image_profiles clustering_architecture resources_disk_id storage_lvm_stripes
vm_boot_priority unix_hotplug_devices api_filtering instance_nic_network clustering_sizing firewall_driver
projects_limits container_syscall_intercept_hugetlbfs limits_hugepages container_nic_routed_gateway
projects_restrictions custom_volume_snapshot_expiry volume_snapshot_scheduling trust_ca_certificates
snapshot_disk_usage clustering_edit_roles container_nic_routed_host_address container_nic_ipvlan_gateway
resources_usb_pci resources_cpu_threads_numa resources_cpu_core_die api_os container_nic_routed_host_table
container_nic_ipvlan_host_table container_nic_ipvlan_mode resources_system images_push_relay
network_dns_search container_nic_routed_limits instance_nic_bridged_vlan network_state_bond_bridge
usedby_consistency custom_block_volumes clustering_failure_domains resources_gpu_mdev console_vga_type
projects_limits_disk network_type_macvlan network_type_sriov container_syscall_intercept_bpf_devices
network_type_ovn projects_networks projects_networks_restricted_uplinks custom_volume_backup
backup_override_name storage_rsync_compression network_type_physical network_ovn_external_subnets
network_ovn_nat network_ovn_external_routes_remove tpm_device_type storage_zfs_clone_copy_rebase gpu_mdev
resources_pci_iommu resources_network_usb resources_disk_address network_physical_ovn_ingress_mode
network_ovn_dhcp network_physical_routes_anycast projects_limits_instances network_state_vlan
instance_nic_bridged_port_isolation instance_bulk_state_change network_gvrp instance_pool_move gpu_sriov
pci_device_type storage_volume_state network_acl migration_stateful disk_state_quota storage_ceph_features
projects_compression projects_images_remote_cache_expiry certificate_project network_ovn_acl
projects_images_auto_update projects_restricted_cluster_target images_default_architecture
network_ovn_acl_defaults gpu_mig project_usage network_bridge_acl warnings
projects_restricted_backups_and_snapshots clustering_join_token clustering_description server_trusted_proxy
clustering_update_cert storage_api_project server_instance_driver_operational
server_supported_storage_drivers event_lifecycle_requestor_address resources_gpu_usb clustering_evacuation
network_ovn_nat_address network_bgp network_forward custom_volume_refresh network_counters_errors_dropped
metrics image_source_project clustering_config network_peer linux_sysctl network_dns ovn_nic_acceleration
certificate_self_renewal instance_project_move storage_volume_project_move cloud_init network_dns_nat
database_leader instance_all_projects clustering_groups ceph_rbd_du instance_get_full qemu_metrics
gpu_mig_uuid event_project clustering_evacuation_live instance_allow_inconsistent_copy network_state_ovn
storage_volume_api_filtering image_restrictions storage_zfs_export network_dns_records
storage_zfs_reserve_space network_acl_log storage_zfs_blocksize metrics_cpu_seconds instance_snapshot_never
certificate_token instance_nic_routed_neighbor_probe event_hub agent_nic_config
projects_restricted_intercept metrics_authentication images_target_project
cluster_migration_inconsistent_copy cluster_ovn_chassis container_syscall_intercept_sched_setscheduler
storage_lvm_thinpool_metadata_size storage_volume_state_total instance_file_head resources_pci_vpd
qemu_raw_conf storage_cephfs_fscache vsock_api storage_volumes_all_projects
projects_networks_restricted_access cluster_join_token_expiry remote_token_expiry init_preseed cpu_hotplug
"""
# Of later versions of LXD, in their order.
_LATER = """
network_load_balancer instance_ready_state instances_rebuild network_allocations metadata_configuration
"""
# What Podium adds; docs/extensions.md tells of each.
_OWN = """
podium_overlay_networks podium_events_since podium_idempotency_key podium_instance_previous podium_guest_hooks
podium_instance_fields podium_pages podium_restart_policy podium_health_checks podium_oci_images
podium_bridged_nic_acls network_address_set podium_image_mirrors podium_simplestreams
"""
LXD, LATER, OWN = tuple(_LXD.split()), tuple(_LATER.split()), tuple(_OWN.split())
Reasons = tuple[tuple[str, str], ...]
LEFT_OUT: Reasons = (
    (
        "there are no virtual machines",
        "virtual-machines vm_boot_priority pci_device_type gpu_mdev gpu_sriov disk_state_quota "
        "migration_stateful qemu_metrics qemu_raw_conf agent_nic_config vsock_api cpu_hotplug",
    ),
    ("there are no block volumes", "custom_block_volumes"),
    (
        "`zfs` pools were not run yet on a host that has ZFS; there these keys are honoured",
        "storage_zfs_use_refquota storage_zfs_clone_copy storage_zfs_export",
    ),
    (
        "refused: keys that Podium's `zfs` pools do not have",
        "storage_zfs_remove_snapshots storage_zfs_clone_copy_rebase storage_zfs_reserve_space "
        "storage_zfs_blocksize",
    ),
    (
        "`lvm` pools were not run yet on a host that has thin volumes; most of these keys are refused",
        "storage_lvm_mount_options storage_lvm_vg_rename storage_lvm_thinpool_rename "
        "storage_lvm_use_thinpool storage_lvm_lv_resizing storage_lvm_stripes "
        "storage_lvm_thinpool_metadata_size",
    ),
    (
        "volumes with a file system of their own are of `lvm` and `ceph` only",
        "storage_block_filesystem_btrfs",
    ),
    (
        "`ceph` pools were not run yet on a host that has a cluster; there these keys are honoured",
        "storage_ceph_user_name storage_ceph_features",
    ),
    (
        "there are no `cephfs` pools, no disks of Ceph's by name, and no such keys of `ceph` pools",
        "storage_ceph_force_osd_reuse ceph_data_pool_name ceph_rbd_du storage_cephfs "
        "storage_cephfs_fscache container_disk_ceph",
    ),
    ("images are no volumes that could be deleted from a pool", "storage_images_delete"),
    ("images and backups lie in Podium's own folder; the keys are refused", "daemon_storage"),
    ("squashfs serves for images; backups are tarballs", "compression_squashfs"),
    (
        "clients are trusted by certificate, one by one; no PKI, Candid, Macaroons or RBAC",
        "auth_pki trust_ca_certificates macaroon_authentication candid_authentication candid_config "
        "candid_config_key rbac",
    ),
    ("the bytes of a certificate are not changed", "certificate_self_renewal"),
    ("pages of other sites may not use the API", "https_allowed_credentials"),
    ("the address of a connection is that of its peer", "server_trusted_proxy"),
    ("the processes open no ports for debugging", "pprof_http"),
    (
        "memory is not copied: there is no live migration and there are no stateful snapshots",
        "migration_pre_copy container_snapshot_stateful_migration clustering_evacuation_live",
    ),
    ("transfers between servers do not tell how far they are", "migration_progress"),
    (
        "system calls are not carried out by the host on a container's behalf",
        "seccomp_notify container_syscall_intercept container_syscall_intercept_mount "
        "container_syscall_intercept_mount_fuse container_syscall_intercept_hugetlbfs "
        "container_syscall_intercept_bpf_devices container_syscall_intercept_sched_setscheduler",
    ),
    ("NVIDIA's container tools are not used", "nvidia_runtime nvidia_runtime_config gpu_mig gpu_mig_uuid"),
    ("this needs a vTPM proxy of the kernel; starts with one fail", "tpm_device_type"),
    ("MAAS is not supported", "maas_network"),
    ("networks that span hosts are not there", "network_vxlan_interface network_vxlan_ttl"),
    (
        "OVN is not there",
        "network_type_ovn network_ovn_external_subnets network_ovn_nat "
        "network_ovn_external_routes_remove network_physical_ovn_ingress_mode network_ovn_dhcp "
        "network_physical_routes_anycast network_ovn_acl network_ovn_acl_defaults "
        "network_ovn_nat_address ovn_nic_acceleration network_state_ovn cluster_ovn_chassis "
        "projects_networks projects_networks_restricted_uplinks",
    ),
    ("BGP is not there", "network_bgp"),
    ("SR-IOV was never tried: no hardware at hand", "network_sriov network_vlan_sriov network_type_sriov"),
    ("`ipvlan` is missing in the kernels that were tried", "container_nic_ipvlan_host_table"),
    ("VLANs of the host are not described", "network_state_vlan"),
    ("what cards say of themselves is for root only, which the gateway is not", "resources_pci_vpd"),
    (
        "members have no roles, groups or configuration of their own",
        "clustering_server_address clustering_image_replication clustering_roles "
        "clustering_architecture clustering_sizing clustering_description clustering_config "
        "database_leader event_hub cluster_join_token_expiry projects_restricted_cluster_target",
    ),
    ("never tried: `make up` sets a server up", "init_preseed"),
)
# What they name is refused, but clients have to be told so by the server, in LXD's words.
ONLY_ANSWERED: Reasons = (
    (
        "members join by token and hold instances; asked for more of clusters, it says that there is none",
        "clustering clustering_join cluster_internal_copy clustering_edit_roles "
        "clustering_failure_domains clustering_join_token clustering_update_cert "
        "clustering_evacuation clustering_groups cluster_migration_inconsistent_copy",
    ),
    ("`ceph` pools are refused with the tool that is missing where it is, as by LXD", "storage_driver_ceph"),
    ("refused on bridges, as by LXD; it is for OVN", "network_peer"),
    ("`vga` is refused for containers, as by LXD", "console_vga_type"),
    (
        "NICs are checked as by LXD; a kernel without `ipvlan` refuses the start",
        "container_nic_ipvlan container_nic_ipvlan_gateway container_nic_ipvlan_mode",
    ),
)


def by_name(reasons: Reasons) -> dict[str, str]:
    """Return the reason of each name."""
    return {name: why for why, names in reasons for name in names.split()}


NAMES = (*(name for name in LXD if name not in by_name(LEFT_OUT)), *LATER, *OWN)
_HEAD = """\
# Which of LXD's API extensions Podium has

Written from the table in `gateway/lxd/extensions.py` by `make docs`; a test compares. In `api_extensions` of
`GET /1.0` stands what Podium honours of what LXD 5.0.2 names, in LXD's order, then what came with later
versions, then what is Podium's own ([extensions.md](extensions.md)). Clients decide by it what they ask for.
"""


def page() -> str:
    """Return docs/api-extensions.md."""
    known = [name for name in LXD if name in NAMES]
    parts = [
        _HEAD,
        f"## There, {len(known)} of {len(LXD)}\n\n" + _list(known) + "\n",
        "Of later versions: " + _list(LATER) + "\n",
        "## There, to be told no\n\n" + _table(ONLY_ANSWERED),
        f"## Left out, {len(LXD) - len(known)}\n\n" + _table(LEFT_OUT),
    ]
    return "\n".join(parts)


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(reasons: Reasons) -> str:
    rows = [f"| {why} | {_list(names.split())} |\n" for why, names in reasons]
    return "| because | extensions |\n|---|---|\n" + "".join(rows)


if __name__ == "__main__":
    print(page(), end="")
