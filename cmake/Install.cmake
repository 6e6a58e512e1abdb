# cmake --install: headers, libraries, CMake package config, pkg-config file.
