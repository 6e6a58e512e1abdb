/* A shared library that is no plugin. */
__attribute__((visibility("default"))) int nothing_at_all;
