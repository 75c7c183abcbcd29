#!/bin/sh
# Removes from a site-packages folder what nothing of Headrace loads, a fifth of it: debug symbols, some packages'
# tests, source maps, sources of compiled modules, the part of Arrow that speaks Flight, and dates in other languages.
set -eu
cd "$1"
find . -name '*.so*' -type f -size +1M -exec strip --strip-unneeded {} + 2>/dev/null || true
# of these alone: dbt and dagster have folders of that name that they need
find numba numpy pyarrow networkx -type d -name tests -prune -exec rm -rf {} +
find . -type f \( -name '*.map' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.a' \) -delete
find babel/locale-data -type f ! -name 'en*.dat' ! -name root.dat -delete
rm -rf pyarrow/include pyarrow/libarrow_flight.so* pyarrow/_flight.* pyarrow/_pyarrow_cpp_tests.*
