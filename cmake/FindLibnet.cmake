# libnet ships no .pc file on all distributions: look for the header and the library.
find_path(LIBNET_INCLUDE_DIR libnet.h)
find_library(LIBNET_LIBRARY net)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Libnet REQUIRED_VARS LIBNET_LIBRARY LIBNET_INCLUDE_DIR)
if(Libnet_FOUND AND NOT TARGET Libnet::libnet)
  add_library(Libnet::libnet UNKNOWN IMPORTED)
  set_target_properties(Libnet::libnet PROPERTIES
    IMPORTED_LOCATION "${LIBNET_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${LIBNET_INCLUDE_DIR}"
    INTERFACE_COMPILE_DEFINITIONS "_DEFAULT_SOURCE")
endif()
mark_as_advanced(LIBNET_INCLUDE_DIR LIBNET_LIBRARY)
