"""Helpers that tests share: generators of scans, servers, clusters, comparisons of stores."""
