# cmake --install: programs, headers, libraries, CMake package config and pkg-config file.
include(CMakePackageConfigHelpers)

install(TARGETS railccl nccl railccl-bench railccl-env railccl-topo railccl-doctor
        railccl-status railccl-sim
        EXPORT railcclTargets
        RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR}
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
if(TARGET railccl-train)
  install(TARGETS railccl-train RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(FILES include/nccl.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY include/railccl DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
# Where Debian's Python looks under the prefix /usr.
install(DIRECTORY python/railccl DESTINATION lib/python3/dist-packages
        PATTERN __pycache__ EXCLUDE)

install(EXPORT railcclTargets NAMESPACE railccl::
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/railccl)
configure_package_config_file(cmake/railcclConfig.cmake.in
                              ${CMAKE_BINARY_DIR}/railcclConfig.cmake
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/railccl)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/railcclConfigVersion.cmake
                                 COMPATIBILITY SameMajorVersion)
install(FILES ${CMAKE_BINARY_DIR}/railcclConfig.cmake ${CMAKE_BINARY_DIR}/railcclConfigVersion.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/railccl)
# Relative to the .pc file itself, so that the installed tree can be moved.
file(RELATIVE_PATH RAILCCL_PC_PREFIX /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(cmake/railccl.pc.in ${CMAKE_BINARY_DIR}/railccl.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/railccl.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
