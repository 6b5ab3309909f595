# A small image of `curfew serve`: the versions of .ci/constraints.txt, no compiler, no root.
# The chart in helm/ stands on its user, port, home and command.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY .ci/constraints.txt .ci/
COPY service service
COPY providers providers
COPY policies policies
COPY alembic alembic
RUN python -m venv /opt/curfew \
 && /opt/curfew/bin/pip install --no-cache-dir --no-compile --constraint .ci/constraints.txt '.[aws,azure,gcp,kubernetes]' \
 && /opt/curfew/bin/python -m compileall -q /opt/curfew/lib \
 && /opt/curfew/bin/pip uninstall --yes pip

FROM python:3.13-slim
RUN groupadd --gid 10001 curfew \
 && useradd --uid 10001 --gid 10001 --home-dir /var/lib/curfew --create-home --shell /usr/sbin/nologin curfew
COPY --from=build /opt/curfew /opt/curfew
ENV PATH=/opt/curfew/bin:$PATH CURFEW_HOME=/var/lib/curfew
# What a cycle needed for a moment goes back to the machine: without these a large fleet takes a tenth more memory.
ENV MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=131072
USER 10001:10001
WORKDIR /var/lib/curfew
VOLUME /var/lib/curfew
EXPOSE 8080
ENTRYPOINT ["curfew"]
CMD ["serve", "--host", "0.0.0.0"]
