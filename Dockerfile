# The command with its usual extras. How to build and use it: docs/how_to/containers.md
FROM python:3.11-slim AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
# Address of an index with torch for a CPU or a version of CUDA; empty for pip's own.
ARG TORCH_INDEX=""
ARG EXTRAS="train,slicer,dicom-seg,pacs"
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch>=2.9,<2.14"
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir "$(echo /wheels/*.whl)[$EXTRAS]"

# Which bundles are trusted is remembered in /settings, by whichever user the container runs as.
RUN useradd --create-home medsegdiff && mkdir --mode=1777 /settings
ENV XDG_CONFIG_HOME=/settings MPLCONFIGDIR=/tmp/matplotlib
USER medsegdiff
WORKDIR /work
ENTRYPOINT ["medsegdiff"]
CMD ["--help"]
