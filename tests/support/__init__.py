"""What tests share: generators of scans, servers, clusters, comparisons."""
