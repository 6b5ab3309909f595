FROM python:3.13-slim AS build
WORKDIR /src
COPY . .
RUN python -m venv /opt/curfew \
 && /opt/curfew/bin/pip install --no-cache-dir --no-compile -c .ci/constraints.txt '.[aws]' \
 && /opt/curfew/bin/python -m compileall -q /opt/curfew/lib

FROM python:3.13-slim
RUN useradd --uid 10001 --create-home --home-dir /var/lib/curfew curfew
COPY --from=build /opt/curfew /opt/curfew
USER 10001
WORKDIR /var/lib/curfew
ENV PATH=/opt/curfew/bin:$PATH CURFEW_HOME=/var/lib/curfew
EXPOSE 8080
ENTRYPOINT ["curfew"]
CMD ["serve", "--host", "0.0.0.0"]
