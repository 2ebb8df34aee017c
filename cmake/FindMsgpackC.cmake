# msgpack-c is called `msgpack` (library msgpackc) on Debian 12 and `msgpack-c` upstream.
find_package(PkgConfig REQUIRED)
pkg_search_module(MSGPACKC QUIET IMPORTED_TARGET msgpack-c msgpack)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(MsgpackC REQUIRED_VARS MSGPACKC_LINK_LIBRARIES VERSION_VAR MSGPACKC_VERSION)
if(MsgpackC_FOUND AND NOT TARGET MsgpackC::msgpackc)
  add_library(MsgpackC::msgpackc ALIAS PkgConfig::MSGPACKC)
endif()
