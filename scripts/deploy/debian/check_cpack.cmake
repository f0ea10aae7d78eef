# Read by cpack before it makes a package: says what is missing, which cpack itself does not.
find_program(SHLIBDEPS dpkg-shlibdeps)
find_program(FILE_PROGRAM file)
if(CPACK_GENERATOR STREQUAL "DEB" AND NOT (SHLIBDEPS AND FILE_PROGRAM))
  message(FATAL_ERROR "a Debian package needs dpkg-shlibdeps and file: "
    "scripts/install-packages release, or apt install dpkg-dev file")
endif()
