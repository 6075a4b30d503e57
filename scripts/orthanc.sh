#!/bin/sh
# Orthanc with its DICOMweb plugin, for the tests of DICOMweb. Does nothing where they are.
set -eu
PATH=$PATH:/usr/sbin:/sbin  # where Debian puts daemons, and not every user looks
command -v Orthanc >/dev/null && [ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] && exit
# Tests start a server of their own: the one that the package would start stays off.
as_root=
[ "$(id -u)" -eq 0 ] || as_root=sudo
[ ! -d /run/systemd/system ] || $as_root systemctl mask orthanc.service
"$(dirname "$0")/debian.sh" orthanc orthanc-dicomweb
