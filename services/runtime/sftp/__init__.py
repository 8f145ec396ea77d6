"""An SFTP server (version 3) for the files of one instance, in a process that is its root and no more.

It has the ids of the guest (a user namespace with the guest's map), sees nothing above the guest's root
(chroot), and holds two descriptors. What its client names and what the guest lays out can lead it nowhere
that the guest's root could not go; and if a file system of the guest's never answers, it alone waits.
"""
