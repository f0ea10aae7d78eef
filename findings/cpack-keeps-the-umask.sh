#!/usr/bin/env bash
# CPack's packages have the umask of whoever built them in their folders: with 077 nobody but root can enter them.
#
# install(FILES ...) sets the modes of files, so that these are 0644 whatever the umask is. The folders that are made
# for them on the way get what the umask leaves, and so do those of the .deb and the .tar.gz. Built by a user or a
# service with umask 077 (or 027, common on servers) a package installs /usr/share/NAME as drwx------: the service
# user cannot read its model or its help, while root, who tries the package, can. The guess that misses: a package
# for the whole system has modes of its own, as the files in it do, or CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS sets
# them: it changes nothing here. (umask 022; cpack) does, with whatever umask the rest was built.
#
# Version: cmake 3.25.1 (Debian 12).
# Seen: with umask 077 drwx------ for share/tried in the .tar.gz and the .deb, -rw-r--r-- for the file in it.
# Needs: cmake 3.16 or newer, dpkg.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >CMakeLists.txt <<'CMAKE'
cmake_minimum_required(VERSION 3.16)
project(tried VERSION 1.0 LANGUAGES NONE)
install(FILES model.txt DESTINATION share/tried)
set(CPACK_PACKAGE_CONTACT "nobody <nobody@example.org>")
set(CPACK_GENERATOR TGZ DEB)
if(SAID)
    set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE
        GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
endif()
include(CPack)
CMAKE
echo a model >model.txt

# Prints the modes of the folder share/tried and of the file in it, as they are in both packages.
# Arguments: umask of cmake, of cpack, whether permissions are set.
modes() {
    build=build-$1-$2-$3
    (
        umask "$1"
        cmake -DSAID="$3" -S . -B "$build"
        umask "$2"
        cd "$build"
        cpack
    ) >build.log 2>&1 || { cat build.log; exit 1; }
    tar tvzf "$build"/*.tar.gz | awk '/tried\/(model.txt)?$/ && !/Linux\/$/ { print $1 }' | sort -u | tr '\n' ' '
    dpkg-deb -c "$build"/*.deb | awk '/tried\/(model.txt)?$/ { print $1 }' | sort -u | tr '\n' ' '
}
expect() {
    found=$(modes "$1" "$2" "$3")
    echo "umask $1, of cpack $2, permissions set: $3: $found"
    [ "$found" = "$4" ]
}
cmake --version | head -1
expect 022 022 OFF "-rw-r--r-- drwxr-xr-x -rw-r--r-- drwxr-xr-x "
expect 077 077 OFF "-rw-r--r-- drwx------ -rw-r--r-- drwx------ "
expect 077 077 ON "-rw-r--r-- drwx------ -rw-r--r-- drwx------ "
expect 077 022 OFF "-rw-r--r-- drwxr-xr-x -rw-r--r-- drwxr-xr-x "
echo "as described"
