#!/bin/sh
# Builds the TinyDocs example into a store of its own, shows the result, and builds again: nothing is left to do.
# usage: demo.sh MODELBUILD DIRECTORY
set -eu
modelbuild=$1
directory=$2
recipe=$(dirname "$0")/tinydocs/recipe.yaml
export MODELBUILD_STORE="$directory/models" MODELBUILD_CACHE="$directory/cache"

step() { printf '\n$ modelbuild %s\n' "$*"; "$modelbuild" "$@"; }

step build "$recipe"
step list
step show helper
step build "$recipe"
