#!/bin/sh
# Write .env from .env.example, with 32 random bytes, as URL-safe Base64, for each <secret>. Only you can read it.
set -eu
cd "$(dirname "$0")"
if [ -e .env ]; then
  echo ".env exists. Airflow's database depends on its keys; delete it only with the volumes: docker compose down --volumes" >&2
  exit 1
fi
umask 077
while IFS= read -r line; do
  case $line in
    *'<secret>'*)
      secret=$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')
      line="${line%%<secret>*}$secret${line#*<secret>}"
      ;;
  esac
  printf '%s\n' "$line"
done <.env.example >.env.new
mv .env.new .env
