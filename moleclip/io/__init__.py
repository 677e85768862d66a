"""Files, downloads, chunks and seeds: what everything else stands on."""
