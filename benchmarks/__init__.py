"""Measurements that compare this project with others; no part of the installed package."""
