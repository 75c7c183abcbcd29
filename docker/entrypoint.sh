#!/bin/sh
# Runs a command of Headrace. Numba wants to write where its machine code is, and the root of the image is read only.
set -eu
if [ ! -d "$NUMBA_CACHE_DIR" ]; then
	cp -R /opt/headrace/own/.numba "$NUMBA_CACHE_DIR"
fi
exec "$@"
