-- The second family of a cluster's addresses. Clusters from before have none and stay with IPv4.
ALTER TABLE clusters
    ADD COLUMN service_range_v6 text,
    ADD COLUMN pod_range_v6 text;
