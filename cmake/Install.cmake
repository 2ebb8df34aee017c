# What is installed, and where. Components: runtime, what a built middlebox needs; development, what building one needs;
# testing, what testing one needs besides; tools, the commands; doc. `cmake --install BUILD --prefix DIR` may name any prefix, and the result may be moved.
include(CMakePackageConfigHelpers)

install(TARGETS splitmerge EXPORT splitmerge-targets
  LIBRARY COMPONENT runtime NAMELINK_COMPONENT development
  FILE_SET HEADERS COMPONENT development)
install(TARGETS splitmerge-pcap EXPORT splitmerge-targets
  LIBRARY COMPONENT runtime NAMELINK_COMPONENT development)
install(TARGETS splitmerge-testing EXPORT splitmerge-testing-targets
  LIBRARY COMPONENT testing
  FILE_SET HEADERS COMPONENT testing)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT runtime)

# find_package(splitmerge CONFIG). While the major version is 0, a minor version may break what was built for another,
# as the library's SONAME says.
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/splitmerge)
configure_package_config_file(cmake/splitmerge-config.cmake.in splitmerge-config.cmake
  INSTALL_DESTINATION ${package_dir} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(splitmerge-config-version.cmake COMPATIBILITY SameMinorVersion)
install(EXPORT splitmerge-targets NAMESPACE splitmerge:: DESTINATION ${package_dir} COMPONENT development)
install(EXPORT splitmerge-testing-targets NAMESPACE splitmerge:: DESTINATION ${package_dir} COMPONENT testing)
install(FILES ${PROJECT_BINARY_DIR}/splitmerge-config.cmake ${PROJECT_BINARY_DIR}/splitmerge-config-version.cmake
  DESTINATION ${package_dir} COMPONENT development)

# pkg-config: the prefix is found from where the file lies, unless the folders were given as absolute paths.
foreach(dir LIBDIR INCLUDEDIR)
  if(IS_ABSOLUTE ${CMAKE_INSTALL_${dir}})
    set(PC_${dir} ${CMAKE_INSTALL_${dir}})
  else()
    set(PC_${dir} "\${prefix}/${CMAKE_INSTALL_${dir}}")
  endif()
endforeach()
if(IS_ABSOLUTE ${CMAKE_INSTALL_LIBDIR})
  set(PC_PREFIX ${CMAKE_INSTALL_PREFIX})
else()
  file(RELATIVE_PATH up /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
  string(REGEX REPLACE "/$" "" PC_PREFIX "\${pcfiledir}/${up}")
endif()
function(install_pc name description component)
  set(PC_NAME ${name})
  set(PC_DESCRIPTION ${description})
  configure_file(cmake/splitmerge.pc.in ${name}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT ${component})
endfunction()
install_pc(splitmerge ${PROJECT_DESCRIPTION} development)
install_pc(splitmerge-testing "The splitmerge runtime as a test kit for middleboxes: link it instead" testing)

set(middleboxes sm-ratelimiter sm-nat)
foreach(name sm-classifier sm-ids sm-p0f sm-p0f-hosts) # where there is what they build on
  if(TARGET ${name})
    list(APPEND middleboxes ${name})
  endif()
endforeach()
# The commands find one another in the folder that they are in, and the library from there.
if(IS_ABSOLUTE ${CMAKE_INSTALL_LIBDIR} OR IS_ABSOLUTE ${CMAKE_INSTALL_BINDIR})
  set_target_properties(${middleboxes} PROPERTIES INSTALL_RPATH ${CMAKE_INSTALL_FULL_LIBDIR})
else()
  file(RELATIVE_PATH up /${CMAKE_INSTALL_BINDIR} /${CMAKE_INSTALL_LIBDIR})
  set_target_properties(${middleboxes} PROPERTIES INSTALL_RPATH "$ORIGIN/${up}")
endif()
install(TARGETS sm-switch sm-orchestrator smctl ${middleboxes} sm-bench RUNTIME COMPONENT tools)
get_property(SM_REFERENCES GLOBAL PROPERTY SM_REFERENCES)
if(SM_REFERENCES)
  install(TARGETS ${SM_REFERENCES} RUNTIME DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/splitmerge COMPONENT tools)
endif()
# It starts a program that is not ours, and has no page: not among the commands.
install(PROGRAMS middleboxes/zeek/sm-zeek DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/splitmerge COMPONENT tools)
install(FILES tools/completion/smctl DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions COMPONENT tools)
foreach(name ${middleboxes})
  install(FILES tools/completion/programs RENAME ${name}
    DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions COMPONENT tools)
endforeach()

# A page is in the section that its name ends with.
file(GLOB pages CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/docs/man/*.[1-9])
foreach(page ${pages})
  string(REGEX MATCH "[1-9]$" section ${page})
  install(FILES ${page} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section} COMPONENT doc)
endforeach()

# The examples are written for the root of the source tree; installed, each folder stands alone, with its capture.
install(FILES README.md docs/architecture.md docs/checkpoint-format.md docs/control-protocol.md docs/drl.md
  docs/drl-protocol.md docs/freeflow.md docs/port-a-middlebox.md docs/write-a-middlebox.md DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT doc)
install(DIRECTORY middleboxes/ratelimiter/examples/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples/ratelimiter
  COMPONENT doc)
install(FILES middleboxes/nat/examples/nat.yaml DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples/nat COMPONENT doc)
install(DIRECTORY middleboxes/counter DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples
  COMPONENT doc FILES_MATCHING PATTERN "*.c" PATTERN "*.md")
install(DIRECTORY middleboxes/template DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples COMPONENT doc)
install(DIRECTORY middleboxes/cpp DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples COMPONENT doc FILES_MATCHING PATTERN "*.cc" PATTERN "*.md")
install(FILES tests/samples/flows.pcap DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples COMPONENT doc)
file(GLOB examples CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/docs/examples/*)
foreach(example ${examples})
  get_filename_component(name ${example} NAME)
  file(READ ${example} text)
  string(REPLACE "docs/examples/" "" text "${text}")
  string(REPLACE "tests/samples/" "" text "${text}")
  file(CONFIGURE OUTPUT examples/${name} CONTENT "${text}" @ONLY)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${example})
  install(FILES ${PROJECT_BINARY_DIR}/examples/${name} DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples COMPONENT doc)
endforeach()

# Units for services that /etc/splitmerge/NAME.yaml describes, and whom they run as.
install(FILES tools/systemd/sm-switch@.service tools/systemd/sm-orchestrator@.service DESTINATION lib/systemd/system COMPONENT tools)
install(FILES tools/systemd/splitmerge.conf DESTINATION lib/sysusers.d COMPONENT tools)
