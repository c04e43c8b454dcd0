# Read by check and publish: the hashes of what is published, a line a file as sha256sum writes them.
lock=published/lock.sha256

hashes() { # of the files below a folder, named from there
    (
        cd "$1"
        if command -v sha256sum >/dev/null 2>&1; then sum=sha256sum; else sum='shasum -a 256'; fi
        # No -type f: a link in the place of a file is no file of ours.
        find . ! -type d ! -path ./lock.sha256 -exec $sum {} + | sed 's|  \./|  |' | sort -k 2
    )
}
