#!/bin/sh
# SeaweedFS with its S3 interface, and the bucket of the lake.
set -eu
weed server -dir=/data -ip=s3 -ip.bind=0.0.0.0 -s3 -s3.config=/run/secrets/s3.json -master.volumeSizeLimitMB=1024 \
	-master.telemetry=false -volume.max=0 &
server=$!
trap 'kill -TERM $server' TERM INT
until echo 's3.bucket.create -name lake' | weed shell -master=s3:9333 -filer=s3:8888 2>&1 | grep -qE 'create bucket|already exists|lake'; do
	kill -0 $server
	sleep 1
done
touch /tmp/bucket
wait $server
